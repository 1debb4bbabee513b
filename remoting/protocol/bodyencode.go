package protocol

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// bodyField says how one member of a body struct is named on the wire.
type bodyField struct {
	name, alias string
	index       []int
	omitEmpty   bool
}

var bodyPlans sync.Map // reflect.Type → []bodyField, in the order of the alphabet

var (
	marshaler    = reflect.TypeFor[encoding.TextMarshaler]()
	unmarshaler  = reflect.TypeFor[encoding.TextUnmarshaler]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	queueKeyType = reflect.TypeFor[MessageQueue]()
)

// EncodeBody writes v as Java's clients and the Go client both read it: compact, members in the order of
// the alphabet, enums by name, nil pointers left out, nil slices and maps as [] and {}.
//
// Members follow their json tags. Maps are written in the order of their keys: those with whole-number keys
// quote them, and those keyed by [MessageQueue] have the object itself in the place of the name, which is no
// standard JSON and is what RemotingSerializable reads and writes. It panics on types that no body has.
func EncodeBody(v any) []byte { return AppendBody(nil, v) }

// AppendBody is [EncodeBody] into dst.
func AppendBody(dst []byte, v any) []byte { return appendValue(dst, reflect.ValueOf(v)) }

func bodyPlan(t reflect.Type) []bodyField {
	if p, ok := bodyPlans.Load(t); ok {
		return p.([]bodyField)
	}
	var plan []bodyField
	for _, sf := range reflect.VisibleFields(t) {
		tag, ok := sf.Tag.Lookup("json")
		if !ok || tag == "-" || !sf.IsExported() {
			continue
		}
		name, rest, _ := strings.Cut(tag, ",")
		plan = append(plan, bodyField{name, sf.Tag.Get("alias"), sf.Index, rest == "omitempty"})
	}
	slices.SortFunc(plan, func(a, b bodyField) int { return cmp.Compare(a.name, b.name) })
	p, _ := bodyPlans.LoadOrStore(t, plan)
	return p.([]bodyField)
}

func appendValue(dst []byte, v reflect.Value) []byte {
	if !v.IsValid() {
		return append(dst, "null"...)
	}
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return append(dst, "null"...)
		}
		return appendValue(dst, v.Elem())
	}
	switch t := v.Type(); {
	case t == rawType:
		return append(dst, v.Bytes()...)
	case t.Implements(marshaler):
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			panic(fmt.Sprintf("BUG: encode %s: %v", t, err))
		}
		return appendQuoted(dst, text)
	}
	switch v.Kind() {
	case reflect.String:
		return appendQuoted(dst, v.String())
	case reflect.Bool:
		return strconv.AppendBool(dst, v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(dst, v.Int(), 10)
	case reflect.Float64:
		return AppendDouble(dst, v.Float())
	case reflect.Slice, reflect.Array:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, v.Index(i))
		}
		return append(dst, ']')
	case reflect.Map:
		return appendMap(dst, v)
	case reflect.Struct:
		return appendStruct(dst, v)
	}
	panic(fmt.Sprintf("BUG: a body cannot hold a %s", v.Type()))
}

func appendStruct(dst []byte, v reflect.Value) []byte {
	dst = append(dst, '{')
	first := true
	for _, f := range bodyPlan(v.Type()) {
		m := v.FieldByIndex(f.index)
		if (m.Kind() == reflect.Pointer || m.Kind() == reflect.Interface) && m.IsNil() || f.omitEmpty && isEmpty(m) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, '"')
		dst = append(dst, f.name...)
		dst = append(dst, '"', ':')
		dst = appendValue(dst, m)
	}
	return append(dst, '}')
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String:
		return v.Len() == 0
	}
	return v.IsZero()
}

func appendMap(dst []byte, v reflect.Value) []byte {
	keys := v.MapKeys()
	switch t := v.Type().Key(); {
	case t == queueKeyType:
		slices.SortFunc(keys, func(a, b reflect.Value) int {
			return a.Interface().(MessageQueue).Compare(b.Interface().(MessageQueue))
		})
	case t.Kind() == reflect.String:
		slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	case t.Kind() == reflect.Int32 || t.Kind() == reflect.Int64 || t.Kind() == reflect.Int:
		slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.Int(), b.Int()) })
	default:
		panic(fmt.Sprintf("BUG: a body cannot hold a map with %s keys", t))
	}
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		if k.CanInt() {
			dst = append(dst, '"')
			dst = strconv.AppendInt(dst, k.Int(), 10)
			dst = append(dst, '"')
		} else {
			dst = appendValue(dst, k)
		}
		dst = append(dst, ':')
		dst = appendValue(dst, v.MapIndex(k))
	}
	return append(dst, '}')
}

// AppendDouble appends x as Java's Double.toString writes it: 0.0, 12.5, 1.0E10. What is no number is 0.0,
// since JSON has no word for it.
func AppendDouble(dst []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		x = 0
	}
	start := len(dst)
	if a := math.Abs(x); a != 0 && (a < 1e-3 || a >= 1e7) {
		dst = strconv.AppendFloat(dst, x, 'e', -1, 64)
		return append(dst[:start], javaExponent(string(dst[start:]))...)
	}
	dst = strconv.AppendFloat(dst, x, 'f', -1, 64)
	if !slices.Contains(dst[start:], '.') {
		dst = append(dst, ".0"...)
	}
	return dst
}

// javaExponent turns 1e+10 into 1.0E10.
func javaExponent(s string) string {
	mantissa, exp, _ := strings.Cut(s, "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	n, _ := strconv.Atoi(exp)
	return mantissa + "E" + strconv.Itoa(n)
}
