package protocol

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// BodyError says where a body cannot be read, as a path into it.
type BodyError struct {
	Path   string // "$.topicConfigTable.TopicA.perm"
	Detail string
	Err    error // ErrTruncated or ErrMalformed
}

func (e *BodyError) Error() string { return fmt.Sprintf("body: %s is %s: %s", e.Path, e.Err, e.Detail) }

// Unwrap gives the kind of the error.
func (e *BodyError) Unwrap() error { return e.Err }

// defaulter is a body type whose members are not zero when they are left out.
type defaulter interface{ setDefaults() }

// DecodeBody reads b into the struct, slice or map that v points to. It takes what is about on the wire:
// whole-number keys without quotes, objects as keys, references to earlier values ({"$ref":"$.a.b"}), numbers
// and booleans as text and the other way round, blanks anywhere, members in any order and unknown ones. A
// member that is absent or null keeps its default. The error is a [*BodyError]; v is then half filled.
func DecodeBody(b []byte, v any) error {
	root, err := parseTree(b)
	if err != nil {
		return err
	}
	d := decoder{root: root, budget: 64*len(b) + 1<<16}
	return named(d.set(reflect.ValueOf(v).Elem(), root), "$")
}

type decoder struct {
	root   *node
	budget int // steps left; references could make a small body endless
}

// spend says whether n more steps are within what a body of this length may cost.
func (d *decoder) spend(n int) bool {
	d.budget -= n
	return d.budget >= 0
}

// fail makes an error without a path; those who led here put theirs in front of it with [named].
func (d *decoder) fail(format string, args ...any) error {
	return &BodyError{"", fmt.Sprintf(format, args...), ErrMalformed}
}

// named puts a step in front of the path of an error, which decoders return as they are left.
func named(err error, step string) error {
	var be *BodyError
	if errors.As(err, &be) {
		if be.Path != "" {
			step += "."
		}
		be.Path = step + be.Path
	}
	return err
}

func (d *decoder) set(dst reflect.Value, n *node) error {
	n, err := d.follow(n)
	switch {
	case err != nil:
		return err
	case !d.spend(1):
		return d.fail("references make it too large")
	}
	if dst.Kind() == reflect.Pointer {
		if n.kind == nodeNull {
			dst.SetZero()
			return nil
		}
		dst.Set(reflect.New(dst.Type().Elem()))
		return d.set(dst.Elem(), n)
	}
	if dst.Type() == rawType {
		dst.SetBytes(bytes.Clone(n.raw))
		return nil
	}
	if dst.CanAddr() && dst.Addr().Type().Implements(unmarshaler) {
		if n.kind == nodeNull {
			return nil
		}
		if err := dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(n.text); err != nil {
			return d.fail("%v", err)
		}
		return nil
	}
	switch dst.Kind() {
	case reflect.Struct:
		return d.setStruct(dst, n)
	case reflect.Map:
		return d.setMap(dst, n)
	case reflect.Slice:
		return d.setSlice(dst, n)
	}
	return d.setScalar(dst, n)
}

func (d *decoder) setStruct(dst reflect.Value, n *node) error {
	if def, ok := dst.Addr().Interface().(defaulter); ok {
		def.setDefaults()
	}
	switch n.kind {
	case nodeNull:
		return nil
	case nodeObject:
	default:
		return d.fail("an object is wanted, not %s", n)
	}
	for _, f := range bodyPlan(dst.Type()) {
		m := n.member(f.name)
		if m == nil && f.alias != "" {
			m = n.member(f.alias)
		}
		if m == nil || m.kind == nodeNull {
			continue
		}
		if err := d.set(dst.FieldByIndex(f.index), m); err != nil {
			return named(err, f.name)
		}
	}
	return nil
}

func (d *decoder) setMap(dst reflect.Value, n *node) error {
	switch n.kind {
	case nodeNull:
		dst.SetZero()
		return nil
	case nodeObject:
	default:
		return d.fail("an object is wanted, not %s", n)
	}
	t := dst.Type()
	m := reflect.MakeMapWithSize(t, len(n.members))
	for i := range n.members {
		e := &n.members[i]
		k, v := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.setKey(k, &e.key); err != nil {
			return named(err, string(e.key.text))
		}
		if err := d.set(v, &e.value); err != nil {
			return named(err, string(e.key.text))
		}
		m.SetMapIndex(k, v)
	}
	dst.Set(m)
	return nil
}

// setKey reads the name of a map entry, which may be an object, also one inside a text.
func (d *decoder) setKey(dst reflect.Value, n *node) error {
	switch {
	case dst.Kind() == reflect.Struct && n.kind == nodeText:
		inner, err := parseTree(n.text)
		if err != nil {
			return d.fail("the name is no object")
		}
		n = inner
	case dst.Kind() == reflect.String && n.kind == nodeObject:
		dst.SetString(string(n.raw))
		return nil
	}
	return d.set(dst, n)
}

func (d *decoder) setSlice(dst reflect.Value, n *node) error {
	switch n.kind {
	case nodeNull:
		dst.SetZero()
		return nil
	case nodeArray:
	default:
		return d.fail("an array is wanted, not %s", n)
	}
	s := reflect.MakeSlice(dst.Type(), len(n.members), len(n.members))
	for i := range n.members {
		if err := d.set(s.Index(i), &n.members[i].value); err != nil {
			return named(err, strconv.Itoa(i))
		}
	}
	dst.Set(s)
	return nil
}

func (d *decoder) setScalar(dst reflect.Value, n *node) error {
	switch n.kind {
	case nodeNull:
		dst.SetZero()
		return nil
	case nodeObject, nodeArray:
		return d.fail("a single value is wanted, not %s", n)
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(string(n.text))
	case reflect.Bool:
		dst.SetBool(parseBool(n.text) || string(n.text) == "1")
	case reflect.Int, reflect.Int32, reflect.Int64:
		i, ok := wholeNumber(n.text, uint(dst.Type().Bits()))
		if !ok {
			return d.fail("%.64q is no whole number of %d bits", n.text, dst.Type().Bits())
		}
		dst.SetInt(i)
	case reflect.Float64:
		x, err := strconv.ParseFloat(string(n.text), 64)
		if err != nil && len(n.text) > 0 {
			return d.fail("%.64q is no number", n.text)
		}
		dst.SetFloat(x)
	default:
		panic(fmt.Sprintf("BUG: a body cannot hold a %s", dst.Type()))
	}
	return nil
}

// wholeNumber reads 7, 7.0 and 7e3; no text at all is 0.
func wholeNumber(text []byte, bits uint) (int64, bool) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return 0, true
	}
	if i, ok := parseInt(text, bits); ok {
		return i, true
	}
	x, err := strconv.ParseFloat(string(text), 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) >= 1<<53 || x < -math.Ldexp(1, int(bits)-1) || x >= math.Ldexp(1, int(bits)-1) {
		return 0, false
	}
	return int64(x), true
}
