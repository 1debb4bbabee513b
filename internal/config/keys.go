package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Size is a number of bytes. It reads 1048576, 1024K and 1M alike (K, M, G and T are powers of 1024)
// and prints the plain number.
type Size int64

// Alias is another name under which a key is read.
type Alias struct {
	Name, Key string
	// Convert makes the value of Key from that of Name, and says what it did, if anything. nil: the
	// same value.
	Convert func(value string) (converted, did string)
}

// Inert are keys that are known and accepted, and why they change nothing here.
type Inert struct {
	Why  string
	Keys []string
}

// Spec says about the keys of T what the tags of its fields do not.
type Spec[T any] struct {
	Aliases []Alias
	Inert   []Inert
	// Complete fills in what depends on other values and reviews the whole. It is called for every
	// new set of values, with fields that it filled before in an update. It may be nil.
	Complete func(v *T, r *Review)
	// Denied lists keys that must not be changed at run time, whatever their tag says.
	Denied func(v *T) []string
}

// Keys is the table of the keys of T. It does not change and may be shared.
type Keys[T any] struct {
	spec   Spec[T]
	keys   []*key // in the order of the fields
	byName map[string]*key
	alias  map[string]Alias
	inert  map[string]string // to the reason
}

type key struct {
	name            string
	index           []int
	unit            time.Duration // of a time.Duration
	min, max        int64         // in the unit, 0 and 0: any number from 0 on
	oneOf           []string
	important, live bool
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	units        = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "h": time.Hour}
)

// KeysOf makes the table for a struct whose fields have tags such as
//
//	ListenPort int           `prop:"listenPort,important,min=1,max=65535"`
//	Reserved   time.Duration `prop:"fileReservedTime,unit=h,live"`
//	Role       string        `prop:"brokerRole,oneof=MASTER|SLAVE"`
//
// Fields without the tag are not settings. Types are string, bool, int, int64, [Size],
// time.Duration (whose unit is ms, s or h) and []string (separated by ;). A number lies from min to
// max: without both it is 0 or more; without max there is no upper limit. important keys are printed
// by -m, live ones may be changed at run time. It panics if the tags or spec contradict themselves.
func KeysOf[T any](spec Spec[T]) *Keys[T] {
	k := &Keys[T]{spec: spec, byName: map[string]*key{}, alias: map[string]Alias{}, inert: map[string]string{}}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		tag, ok := f.Tag.Lookup("prop")
		if !ok {
			continue
		}
		entry, err := parseTag(f, tag)
		if err != nil || k.known(entry.name) {
			panic(fmt.Sprintf("BUG: field %s: bad or repeated tag %q: %v", f.Name, tag, err))
		}
		k.keys = append(k.keys, entry)
		k.byName[entry.name] = entry
	}
	for _, a := range spec.Aliases {
		if k.known(a.Name) || k.byName[a.Key] == nil {
			panic("BUG: alias " + a.Name + " is taken or leads nowhere")
		}
		k.alias[a.Name] = a
	}
	for _, group := range spec.Inert {
		for _, name := range group.Keys {
			if k.known(name) {
				panic("BUG: " + name + " is listed twice")
			}
			k.inert[name] = group.Why
		}
	}
	return k
}

// Names lists the keys in the order of the fields.
func (k *Keys[T]) Names() []string {
	names := make([]string, len(k.keys))
	for i, e := range k.keys {
		names[i] = e.name
	}
	return names
}

// Bools are the values of a key that is a bool.
var Bools = []string{"true", "false"}

// Known is what documentation says of one key.
type Known struct {
	Name   string
	Live   bool     // may be changed at run time
	Values []string // all that it may be, nil for numbers and free text
	Alias  string   // the key that it is another name of, "" for none
	Inert  string   // why it changes nothing, "" if it does
}

// Known lists all keys: those with an effect in the order of the fields, then other names of them, then
// the inert ones.
func (k *Keys[T]) Known() []Known {
	var all []Known
	for _, e := range k.keys {
		known := Known{Name: e.name, Live: e.live, Values: e.oneOf}
		if reflect.TypeFor[T]().FieldByIndex(e.index).Type.Kind() == reflect.Bool {
			known.Values = Bools
		}
		all = append(all, known)
	}
	for _, a := range k.spec.Aliases {
		all = append(all, Known{Name: a.Name, Alias: a.Key})
	}
	for _, group := range k.spec.Inert {
		for _, name := range group.Keys {
			all = append(all, Known{Name: name, Inert: group.Why})
		}
	}
	return all
}

func (k *Keys[T]) known(name string) bool {
	_, isAlias := k.alias[name]
	_, isInert := k.inert[name]
	return k.byName[name] != nil || isAlias || isInert
}

// FlagName is the long flag of a key: listenPort becomes listen-port, brokerIP1 broker-ip1.
func FlagName(key string) string {
	var b strings.Builder
	rs := []rune(key)
	for i, r := range rs {
		if unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func parseTag(f reflect.StructField, tag string) (*key, error) {
	parts := strings.Split(tag, ",")
	e := &key{name: parts[0], index: f.Index}
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "important":
			e.important = true
		case "live":
			e.live = true
		case "oneof":
			e.oneOf = strings.Split(value, "|")
		case "unit":
			e.unit = units[value]
		case "min":
			e.min, err = parseSize(value)
		case "max":
			e.max, err = parseSize(value)
		default:
			err = errors.New("unknown option " + part)
		}
		if err != nil {
			return e, err
		}
	}
	number, isDuration := false, f.Type == durationType
	switch f.Type.Kind() {
	case reflect.Int, reflect.Int64:
		number = true
	case reflect.String, reflect.Bool:
	case reflect.Slice:
		if f.Type.Elem().Kind() != reflect.String {
			return e, errors.New("no list of strings")
		}
	default:
		return e, errors.New("a type that cannot be read")
	}
	switch {
	case e.name == "" || !f.IsExported():
		return e, errors.New("no name, or not exported")
	case isDuration != (e.unit != 0):
		return e, errors.New("durations need a unit, others cannot have one")
	case len(e.oneOf) > 0 && f.Type.Kind() != reflect.String:
		return e, errors.New("oneof is for strings")
	case !number && (e.min != 0 || e.max != 0):
		return e, errors.New("limits are for numbers")
	}
	return e, nil
}

// set puts text into field. The error is what to write instead.
func (e *key) set(field reflect.Value, text string) error {
	switch field.Kind() {
	case reflect.String:
		if len(e.oneOf) > 0 && !slices.Contains(e.oneOf, text) {
			return fmt.Errorf("use %s, in this spelling", strings.Join(e.oneOf, " or "))
		}
		field.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "false":
			field.SetBool(len(text) == len("true"))
		default:
			return errors.New("use true or false")
		}
	case reflect.Slice:
		list, err := splitList(text)
		if err != nil {
			return err
		}
		field.Set(reflect.ValueOf(list).Convert(field.Type()))
	default:
		return e.setNumber(field, text)
	}
	return nil
}

func (e *key) setNumber(field reflect.Value, text string) error {
	var n int64
	var err error
	if field.Type() == sizeType {
		n, err = parseSize(text)
	} else {
		n, err = strconv.ParseInt(text, 10, 64)
	}
	scaled := n
	if e.unit != 0 {
		scaled = n * int64(e.unit)
	}
	high := e.max
	if high == 0 && e.min <= 0 || high < e.min {
		high = 1<<63 - 1
	}
	overflow := e.unit != 0 && scaled/int64(e.unit) != n
	if err != nil || n < e.min || n > high || overflow || field.OverflowInt(scaled) {
		return errors.New(e.numberWanted(field.Type(), high))
	}
	field.SetInt(scaled)
	return nil
}

func (e *key) numberWanted(t reflect.Type, high int64) string {
	what := "a whole number"
	if t == sizeType {
		what = "a number of bytes, or one with K, M or G,"
	}
	for name, unit := range units {
		if unit == e.unit {
			what = "a whole number of " + name
		}
	}
	if high == 1<<63-1 {
		return fmt.Sprintf("use %s from %d on", what, e.min)
	}
	return fmt.Sprintf("use %s from %d to %d", what, e.min, high)
}

// text is what set reads back.
func (e *key) text(field reflect.Value) string {
	switch field.Kind() {
	case reflect.String:
		return field.String()
	case reflect.Bool:
		return strconv.FormatBool(field.Bool())
	case reflect.Slice:
		var list []string
		for i := range field.Len() {
			list = append(list, field.Index(i).String())
		}
		return strings.Join(list, ";")
	}
	return strconv.FormatInt(field.Int()/int64(max(e.unit, 1)), 10)
}

func parseSize(text string) (int64, error) {
	shift := 0
	if text != "" {
		if at := strings.IndexByte("KMGT", text[len(text)-1]&^0x20); at >= 0 {
			text, shift = text[:len(text)-1], 10*(at+1)
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && n<<shift>>shift != n {
		err = strconv.ErrRange
	}
	return n << shift, err
}

// splitList reads "a; b;" as a and b. Each may stand in quotes of its own.
func splitList(text string) ([]string, error) {
	var list []string
	for part := range strings.SplitSeq(text, ";") {
		part, _ = clean(part)
		if strings.ContainsAny(part, `"'`) {
			return nil, errors.New("leave the quotes out")
		}
		if part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}

// clean takes blanks round a value away, and quotes round the whole of it, and says whether there
// were quotes.
func clean(value string) (cleaned string, quoted bool) {
	value = strings.TrimSpace(strings.ToValidUTF8(value, "\uFFFD"))
	for len(value) >= 2 {
		inner, q := value[1:len(value)-1], value[:1]
		if q != value[len(value)-1:] || q != `"` && q != "'" || strings.Contains(inner, q) {
			break
		}
		value, quoted = strings.TrimSpace(inner), true
	}
	return value, quoted
}

// nearest is the known name that differs least from name, or "" if all differ in much.
func (k *Keys[T]) nearest(name string) string {
	var known []string
	for _, e := range k.keys {
		known = append(known, e.name)
	}
	for _, a := range k.spec.Aliases {
		known = append(known, a.Name)
	}
	for _, group := range k.spec.Inert {
		known = append(known, group.Keys...)
	}
	best := Nearest(name, known)
	if a, ok := k.alias[best]; ok {
		return a.Key
	}
	return best
}

// Nearest is the one of the known names that differs from name in the fewest letters, whatever their
// case, or "" if all differ in many.
func Nearest(name string, known []string) string {
	best, fewest := "", max(2, len(name)/3)+1
	for _, candidate := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < fewest {
			best, fewest = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, remove or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
