(function () {
  "use strict";
  document.documentElement.classList.add("has-js");
  // One cursor over all panels of a time series.
  document.querySelectorAll("svg.series").forEach(function (svg) {
    var d = JSON.parse(svg.dataset.s), line = svg.querySelector(".cursor");
    var reads = svg.querySelectorAll(".read"), at = -1;
    var clock = svg.ownerDocument.createElementNS(svg.namespaceURI, "text");
    clock.setAttribute("class", "clock");
    clock.setAttribute("text-anchor", "middle");
    clock.setAttribute("y", String(Number(line.getAttribute("y1")) - 16));
    svg.appendChild(clock);
    // A panel that has no data has no reading; keep the two lists in step by position.
    var rows = [];
    svg.querySelectorAll(".label").forEach(function (l, i) { rows.push({ y: Number(l.getAttribute("y")), v: d.v[i] }); });
    reads.forEach(function (r) {
      var y = Number(r.getAttribute("y"));
      rows.forEach(function (p) { if (Math.abs(p.y + 27 - y) < 1) { r.vals = p.v; } });
    });
    function show(i) {
      if (i < 0 || i >= d.x.length) { return; }
      at = i;
      line.setAttribute("x1", d.x[i]);
      line.setAttribute("x2", d.x[i]);
      clock.setAttribute("x", d.x[i]);
      clock.textContent = d.t[i];
      reads.forEach(function (r) { r.textContent = r.vals ? r.vals[i] : ""; });
    }
    function hide() {
      at = -1;
      line.setAttribute("x1", -10);
      line.setAttribute("x2", -10);
      clock.textContent = "";
      reads.forEach(function (r) { r.textContent = ""; });
    }
    svg.addEventListener("pointermove", function (e) {
      var m = svg.getScreenCTM();
      if (!m) { return; }
      var x = (e.clientX - m.e) / m.a, best = 0;
      for (var i = 1; i < d.x.length; i++) {
        if (Math.abs(d.x[i] - x) < Math.abs(d.x[best] - x)) { best = i; }
      }
      show(best);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", function (e) {
      if (e.key === "ArrowRight") { show(Math.min(at + 1, d.x.length - 1)); }
      else if (e.key === "ArrowLeft") { show(Math.max(at - 1, 0)); }
      else if (e.key === "Escape") { hide(); }
      else { return; }
      e.preventDefault();
    });
  });
  document.querySelectorAll("button.copy").forEach(function (b) {
    b.addEventListener("click", function () {
      var code = b.parentNode.querySelector("code"), sel = window.getSelection(), r = document.createRange();
      r.selectNodeContents(code);
      sel.removeAllRanges();
      sel.addRange(r);
      var done = function () { b.textContent = "copied"; setTimeout(function () { b.textContent = "copy"; }, 1200); };
      if (navigator.clipboard) { navigator.clipboard.writeText(code.textContent).then(done, function () { document.execCommand("copy"); done(); }); }
      else { document.execCommand("copy"); done(); }
    });
  });
  // A link to a folded cell unfolds it; paper shows everything.
  function unfold() {
    var el = location.hash && document.getElementById(location.hash.slice(1));
    var d = el && el.querySelector("details");
    if (d && el.tagName === "ARTICLE" && !d.open) { d.open = true; el.scrollIntoView(); }
  }
  window.addEventListener("hashchange", unfold);
  unfold();
  var folded = [];
  window.addEventListener("beforeprint", function () {
    folded = Array.prototype.filter.call(document.querySelectorAll("details"), function (d) { return !d.open; });
    folded.forEach(function (d) { d.open = true; });
  });
  window.addEventListener("afterprint", function () { folded.forEach(function (d) { d.open = false; }); });
})();
