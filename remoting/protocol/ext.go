package protocol

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// extField says how one member of a header struct travels.
type extField struct {
	name     string
	index    []int
	required bool
	fallback string // value when the field is absent
}

var extPlans sync.Map // reflect.Type → []extField

// DecodeExt fills the header struct that v points to from the ext fields of c.
//
// Members are tagged `ext:"name"`, `ext:"name,required"` or `ext:"name,default=text"` and are string,
// int32, int64, bool, float64, or a pointer to one of those: nil when the field is absent. Fields that
// are absent and not required become zero, or their default; those that v does not have are left alone,
// and "" counts as absent for anything but a string. As in Java a boolean is true for "true" in any
// case, else false. The error is a [*HeaderError] with the first complaint.
func DecodeExt(c *Command, v any) error {
	rv := reflect.ValueOf(v).Elem()
	for _, f := range extPlan(rv.Type()) {
		dst := rv.FieldByIndex(f.index)
		text, ok := c.Get(f.name)
		if ok && len(text) == 0 && baseKind(dst.Type()) != reflect.String {
			ok = false
		}
		switch {
		case ok:
		case f.required:
			return &HeaderError{f.name, "", wanted(dst.Type()), ErrMissing}
		case f.fallback != "":
			text = []byte(f.fallback)
		default:
			dst.SetZero()
			continue
		}
		if !setText(dst, text) {
			return &HeaderError{f.name, string(text), wanted(dst.Type()), ErrMalformed}
		}
	}
	return nil
}

// EncodeExt appends the members of the header struct v, or that v points to, as ext fields of c.
// Left out are nil pointers, and empty strings that are not required.
func EncodeExt(c *Command, v any) {
	rv := reflect.Indirect(reflect.ValueOf(v))
	for _, f := range extPlan(rv.Type()) {
		src := rv.FieldByIndex(f.index)
		if src.Kind() == reflect.Pointer {
			if src.IsNil() {
				continue
			}
			src = src.Elem()
		}
		switch src.Kind() {
		case reflect.String:
			if s := src.String(); s != "" || f.required {
				c.Add(f.name, s)
			}
		case reflect.Bool:
			c.AddBool(f.name, src.Bool())
		case reflect.Float64:
			c.Add(f.name, strconv.FormatFloat(src.Float(), 'f', -1, 64))
		default:
			c.AddInt(f.name, src.Int())
		}
	}
}

func extPlan(t reflect.Type) []extField {
	if p, ok := extPlans.Load(t); ok {
		return p.([]extField)
	}
	var plan []extField
	for _, sf := range reflect.VisibleFields(t) {
		tag, ok := sf.Tag.Lookup("ext")
		if !ok {
			continue
		}
		f := extField{index: sf.Index}
		for i, part := range strings.Split(tag, ",") {
			switch d, isDefault := strings.CutPrefix(part, "default="); {
			case i == 0:
				f.name = part
			case part == "required":
				f.required = true
			case isDefault:
				f.fallback = d
			default:
				panic(fmt.Sprintf("BUG: %s.%s: unknown part %q of the ext tag", t, sf.Name, part))
			}
		}
		if wanted(sf.Type) == "" {
			panic(fmt.Sprintf("BUG: %s.%s: an ext field cannot be a %s", t, sf.Name, sf.Type))
		}
		plan = append(plan, f)
	}
	p, _ := extPlans.LoadOrStore(t, plan)
	return p.([]extField)
}

func baseKind(t reflect.Type) reflect.Kind {
	if t.Kind() == reflect.Pointer {
		return t.Elem().Kind()
	}
	return t.Kind()
}

// wanted says in words what a field of this type holds; "" if no header may have it.
func wanted(t reflect.Type) string {
	switch baseKind(t) {
	case reflect.String:
		return "text"
	case reflect.Int32:
		return "number of 32 bits"
	case reflect.Int64:
		return "number of 64 bits"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "decimal number"
	}
	return ""
}

func setText(dst reflect.Value, text []byte) bool {
	if dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		dst = dst.Elem()
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(string(text))
	case reflect.Bool:
		dst.SetBool(parseBool(text))
	case reflect.Float64:
		x, err := strconv.ParseFloat(string(text), 64)
		dst.SetFloat(x)
		return err == nil
	default:
		n, ok := parseInt(text, uint(dst.Type().Bits()))
		dst.SetInt(n)
		return ok
	}
	return true
}

func parseBool(text []byte) bool { return bytes.EqualFold(text, []byte("true")) }
