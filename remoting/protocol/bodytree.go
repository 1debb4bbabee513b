package protocol

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

type nodeKind byte

const (
	nodeNull   nodeKind = iota
	nodeBare            // a number, true, false
	nodeText            // a string
	nodeObject          // members with keys
	nodeArray           // members without
)

// node is a value of a body, in the dialect of fastjson: the key of a member may be any value.
type node struct {
	kind    nodeKind
	text    []byte // of a scalar, unescaped
	raw     []byte // as it stands
	members []member
}

type member struct{ key, value node }

// maxBodyDepth ends bodies that nest for no good reason.
const maxBodyDepth = 64

func (n *node) String() string {
	switch n.kind {
	case nodeNull:
		return "null"
	case nodeObject:
		return "an object"
	case nodeArray:
		return "an array"
	}
	return fmt.Sprintf("%.64q", n.text)
}

// member finds a value by name, nil if there is none; the last one counts.
func (n *node) member(name string) *node {
	for i := len(n.members) - 1; i >= 0; i-- {
		if m := &n.members[i]; m.key.kind != nodeObject && string(m.key.text) == name {
			return &m.value
		}
	}
	return nil
}

// parseTree reads a whole body. Behind the value only blanks and zero bytes may stand.
func parseTree(b []byte) (*node, error) {
	b = bytes.TrimRight(b, "\x00 \t\r\n")
	p := treeParser{scanner: scanner{b: b}}
	var n node
	p.value(&n, 0)
	if p.end(); p.why != "" {
		err := ErrMalformed
		if p.i >= len(b) {
			err = ErrTruncated
		}
		return nil, &BodyError{"byte " + strconv.Itoa(p.i), p.why, err}
	}
	return &n, nil
}

type treeParser struct{ scanner }

func (p *treeParser) value(n *node, depth int) {
	if depth > maxBodyDepth {
		p.fail("values nest more than " + strconv.Itoa(maxBodyDepth) + " deep")
		return
	}
	ch := p.peek()
	start := p.i
	switch ch {
	case '{', '[':
		p.nested(n, ch, depth)
	case '"':
		n.kind, n.text = nodeText, p.text()
	case '\'':
		n.kind, n.text = nodeText, p.single()
	default:
		p.skip()
		n.kind, n.text = nodeBare, p.b[start:p.i]
		switch string(n.text) {
		case "null", "undefined":
			n.kind, n.text = nodeNull, nil
		case "new", "Set", "TreeSet":
			p.fail("sets are written as arrays")
		}
	}
	n.raw = p.b[start:p.i]
}

func (p *treeParser) nested(n *node, open byte, depth int) {
	n.kind = nodeObject
	shut := byte('}')
	if open == '[' {
		n.kind, shut = nodeArray, ']'
	}
	p.i++
	for p.why == "" {
		for p.peek() == ',' {
			p.i++
		}
		if p.peek() == shut {
			p.i++
			return
		}
		n.members = append(n.members, member{})
		m := &n.members[len(n.members)-1]
		if open == '{' {
			p.value(&m.key, depth+1)
			p.colon()
		}
		p.value(&m.value, depth+1)
		if ch := p.peek(); ch != ',' && ch != shut {
			p.fail("a comma or " + string(shut) + " must follow a value")
		}
	}
}

// single reads a text in single quotes.
func (p *treeParser) single() []byte {
	p.i++
	start := p.i
	for ; p.i < len(p.b); p.i++ {
		if p.b[p.i] == '\'' {
			p.i++
			return p.b[start : p.i-1]
		}
	}
	p.fail("a string does not end")
	return nil
}

// follow replaces a reference by what it points to. Paths start at the root ($), a step is the name of a
// member or the index of an element; the step "null" is what fastjson calls an object in the place of a key.
func (d *decoder) follow(n *node) (*node, error) {
	for hops := 0; n.kind == nodeObject && n.isRef(); hops++ {
		path := string(n.members[0].value.text)
		if hops > maxBodyDepth {
			return nil, d.fail("references go round in circles")
		}
		target, why := d.find(path)
		if why != "" {
			return nil, d.fail("the reference %.128q %s", path, why)
		}
		if target == n {
			return nil, d.fail("the reference %.128q points to itself", path)
		}
		n = target
	}
	return n, nil
}

func (d *decoder) find(path string) (*node, string) {
	rest, ok := strings.CutPrefix(path, "$")
	if !ok {
		return nil, "does not start at the root"
	}
	n := d.root
	for rest != "" {
		var step string
		switch rest[0] {
		case '[':
			i := strings.IndexByte(rest, ']')
			if i < 0 {
				return nil, "does not end"
			}
			step, rest = strings.Trim(rest[1:i], `"'`), rest[i+1:]
		case '.':
			step, rest = nextStep(rest[1:])
		default:
			return nil, "is no path"
		}
		if !d.spend(len(n.members)) {
			return nil, "is one of too many"
		}
		next, why := n.step(step)
		if why != "" {
			return nil, why
		}
		n = next
	}
	return n, ""
}

// nextStep cuts the name of a member off a path; fastjson puts a backslash before what is not a letter.
func nextStep(path string) (step, rest string) {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		switch ch := path[i]; {
		case ch == '.' || ch == '[':
			return b.String(), path[i:]
		case ch == '\\' && i+1 < len(path):
			i++
		}
		b.WriteByte(path[i])
	}
	return b.String(), ""
}

// step goes down one level; why says what is in the way.
func (n *node) step(name string) (next *node, why string) {
	if n.kind == nodeArray {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= len(n.members) {
			return nil, "points outside an array"
		}
		return &n.members[i].value, ""
	}
	if next = n.member(name); next != nil {
		return next, ""
	}
	if name == "null" {
		for i := range n.members {
			if k := &n.members[i].key; k.kind == nodeObject && !k.isRef() {
				if next != nil {
					return nil, "may mean several keys"
				}
				next = k
			}
		}
	}
	if next == nil {
		return nil, "points to nothing"
	}
	return next, ""
}

func (n *node) isRef() bool {
	return len(n.members) == 1 && string(n.members[0].key.text) == "$ref"
}
