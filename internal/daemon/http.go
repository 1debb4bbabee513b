package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"rmq/internal/run"
)

// HTTPOptions say what a [HTTPServer] tells.
type HTTPOptions struct {
	Address string // host, or "" for all addresses
	Port    int
	Metrics http.Handler
	// Alive and Ready give the reasons why the process is not, none when it is. They must not block.
	Alive, Ready func() []string
	Logger       *slog.Logger // nil: none
}

// HTTPServer answers
//
//	/metrics        what Options.Metrics says
//	/healthz        200 ok, or 503 and a line for each reason why the process should be replaced
//	/readyz         200 ok, or 503 and a line for each reason why it should get no work now
//	/debug/pprof/   profiles, for this host only: 403 for others
//
// Goroutine: http/serve, and one a request.
type HTTPServer struct {
	srv      *http.Server
	listener net.Listener
	group    *run.Group
}

// ListenHTTP starts a server.
func ListenHTTP(ctx context.Context, o HTTPOptions) (*HTTPServer, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(o.Address, strconv.Itoa(o.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w: set httpPort to a free one, or to 0 for none", err)
	}
	h := &HTTPServer{listener: l, group: run.New(context.WithoutCancel(ctx), "http"), srv: &http.Server{
		Handler: o.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}}
	h.group.Go("serve", func(context.Context) error {
		if err := h.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return h, nil
}

// Addr is where it listens.
func (h *HTTPServer) Addr() net.Addr { return h.listener.Addr() }

// Shutdown ends the server; requests under way may finish until ctx ends.
func (h *HTTPServer) Shutdown(ctx context.Context) error {
	err := h.srv.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, h.srv.Close())
	}
	return errors.Join(err, h.group.Wait())
}

func (o *HTTPOptions) handler() http.Handler {
	mux := http.NewServeMux()
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	mux.HandleFunc("GET /healthz", reasons(o.Alive))
	mux.HandleFunc("GET /readyz", reasons(o.Ready))
	mux.HandleFunc("/debug/pprof/", fromHere(pprof.Index))
	mux.HandleFunc("/debug/pprof/cmdline", fromHere(pprof.Cmdline))
	mux.HandleFunc("/debug/pprof/profile", fromHere(pprof.Profile))
	mux.HandleFunc("/debug/pprof/symbol", fromHere(pprof.Symbol))
	mux.HandleFunc("/debug/pprof/trace", fromHere(pprof.Trace))
	return mux
}

func reasons(why func() []string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		text := "ok"
		if why != nil {
			if not := why(); len(not) > 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				text = strings.Join(not, "\n")
			}
		}
		_, _ = io.WriteString(w, text+"\n") // who asked may be gone
	}
}

func fromHere(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "profiles are for this host only: ask through a loopback address", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}
