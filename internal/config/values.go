package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// What is wrong with a [ValueError], where a caller may want to know.
var (
	ErrUnknownKey = errors.New("unknown key")
	ErrNotLive    = errors.New("not to be changed at run time")
	ErrDenied     = errors.New("denied")
)

// Origin says where a value came from, in words for people.
type Origin string

// Default is the origin of what nobody has set.
const Default Origin = "default"

// FromFile names a line of a file.
func FromFile(name string, line int) Origin { return Origin(name + ":" + strconv.Itoa(line)) }

// FromEnv names an environment variable.
func FromEnv(name string) Origin { return Origin("environment " + name) }

// FromFlag names a flag.
func FromFlag(name string) Origin { return Origin("flag --" + name) }

// Setting is one value that somebody gave.
type Setting struct {
	Key, Value string
	From       Origin
}

// FileSettings reads the text of a property file; name stands in messages.
func FileSettings(name string, text []byte) ([]Setting, error) {
	props, err := ParseProperties(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	settings := make([]Setting, len(props))
	for i, p := range props {
		settings[i] = Setting{p.Key, p.Value, FromFile(name, p.Line)}
	}
	return settings, nil
}

// TextSettings reads properties that came over the wire, in UTF-8.
func TextSettings(from Origin, text []byte) ([]Setting, error) {
	props, err := ParseProperties(append([]byte(utf8Mark), text...))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", from, err)
	}
	settings := make([]Setting, len(props))
	for i, p := range props {
		settings[i] = Setting{p.Key, p.Value, from}
	}
	return settings, nil
}

// EnvSettings are the settings in environment variables, named by keyOf; an empty one is none.
func EnvSettings(getenv func(name string) string, keyOf map[string]string) []Setting {
	var settings []Setting
	for _, name := range slices.Sorted(maps.Keys(keyOf)) {
		if value := getenv(name); value != "" {
			settings = append(settings, Setting{keyOf[name], value, FromEnv(name)})
		}
	}
	return settings
}

// ValueError is one value that cannot be.
type ValueError struct {
	Key, Value string
	From       Origin
	Want       string // the limit, and what to do
	Err        error  // its kind, or nil
}

func (e *ValueError) Error() string {
	where := ""
	if e.From != "" && e.From != Default {
		where = string(e.From) + ": "
	}
	if errors.Is(e.Err, ErrUnknownKey) {
		return fmt.Sprintf("%s%s: %s", where, e.Key, e.Want)
	}
	value := e.Value
	if value == "" {
		value = "empty"
	}
	return fmt.Sprintf("%s%s is %s: %s", where, e.Key, value, e.Want)
}

// Unwrap gives the kind.
func (e *ValueError) Unwrap() error { return e.Err }

// Notice is something the user should know about a setting that was taken all the same.
type Notice struct {
	Key, Text string
	From      Origin
}

func (n Notice) String() string {
	if n.From == "" || n.From == Default {
		return n.Key + ": " + n.Text
	}
	return fmt.Sprintf("%s: %s: %s", n.From, n.Key, n.Text)
}

// Change is one value that an update changed.
type Change struct{ Key, Old, New string }

func (c Change) String() string { return fmt.Sprintf("%s: %q → %q", c.Key, c.Old, c.New) }

// Values are the values of all keys of T, each with its origin. They do not change, so that any
// number of goroutines may read them; [Values.Update] makes new ones.
type Values[T any] struct {
	keys *Keys[T]
	v    T
	from map[string]Origin
}

// Get is the struct. It must not be changed.
func (v *Values[T]) Get() *T { return &v.v }

// Origin says where the value of key came from, "" for a key that there is not.
func (v *Values[T]) Origin(key string) Origin {
	switch from, ok := v.from[key]; {
	case ok:
		return from
	case v.keys.byName[key] != nil:
		return Default
	}
	return ""
}

// Text is the value of key as a file would give it.
func (v *Values[T]) Text(key string) (text string, ok bool) {
	e := v.keys.byName[key]
	if e == nil {
		return "", false
	}
	return e.text(v.field(e)), true
}

func (v *Values[T]) field(e *key) reflect.Value {
	return reflect.ValueOf(&v.v).Elem().FieldByIndex(e.index)
}

// Load puts layers over defaults, later ones over earlier ones. In a layer the last of two settings
// of one key counts. Strict makes an unknown key an error instead of a notice. The error joins a
// [*ValueError] for everything that is wrong; then there are no Values.
func (k *Keys[T]) Load(defaults T, strict bool, layers ...[]Setting) (*Values[T], []Notice, error) {
	v := &Values[T]{keys: k, v: defaults, from: map[string]Origin{}}
	r := &Review{}
	for _, layer := range layers {
		here := map[string]Setting{}
		for _, s := range layer {
			k.apply(v, r, s, here, strict)
		}
	}
	return v.complete(r)
}

// complete has the whole reviewed.
func (v *Values[T]) complete(r *Review) (*Values[T], []Notice, error) {
	if v.keys.spec.Complete != nil {
		r.text = func(key string) string {
			text, ok := v.Text(key)
			if !ok {
				panic("BUG: no key " + key)
			}
			return text
		}
		r.origin = v.Origin
		v.keys.spec.Complete(&v.v, r)
	}
	if err := errors.Join(r.errs...); err != nil {
		return nil, r.notices, err
	}
	return v, r.notices, nil
}

// apply sets what s says. here is what its layer set before.
func (k *Keys[T]) apply(v *Values[T], r *Review, s Setting, here map[string]Setting, strict bool) {
	note := func(format string, args ...any) {
		r.notices = append(r.notices, Notice{s.Key, fmt.Sprintf(format, args...), s.From})
	}
	name, value := s.Key, s.Value
	value, quoted := clean(value)
	if quoted {
		note("the quotes round %s are dropped", value)
	}
	if a, ok := k.alias[name]; ok {
		did := ""
		if a.Convert != nil {
			value, did = a.Convert(value)
		}
		name = a.Key
		if did != "" {
			did = ", " + did
		}
		note("read as %s=%s%s", name, value, did)
	}
	if why, ok := k.inert[name]; ok {
		note("has no effect here: %s", why)
		return
	}
	e := k.byName[name]
	if e == nil {
		text := ErrUnknownKey.Error()
		if near := k.nearest(name); near != "" {
			text += ", did you mean " + near + "?"
		}
		if strict {
			r.errs = append(r.errs, &ValueError{s.Key, value, s.From, text, ErrUnknownKey})
			return
		}
		note("%s", text)
		return
	}
	if before, ok := here[name]; ok && before.Value != value {
		note("takes the place of %s=%s from %s", before.Key, before.Value, before.From)
	}
	here[name] = Setting{s.Key, value, s.From}
	if err := e.set(v.field(e), value); err != nil {
		r.errs = append(r.errs, &ValueError{s.Key, value, s.From, err.Error(), nil})
		return
	}
	v.from[name] = s.From
}

// Update makes new values with some keys changed, as one step: if anything is wrong, nothing is
// changed and the error joins a [*ValueError] for each complaint. Keys that are not live can only be
// given the value that they have. What changed is returned for an audit log, and for [Rewrite].
func (v *Values[T]) Update(settings []Setting) (*Values[T], []Change, []Notice, error) {
	next := &Values[T]{keys: v.keys, v: v.v, from: map[string]Origin{}}
	r := &Review{}
	here := map[string]Setting{}
	var denied []string
	if v.keys.spec.Denied != nil {
		denied = v.keys.spec.Denied(&v.v)
	}
	for _, s := range settings {
		refuse := func(want string, kind error) {
			r.errs = append(r.errs, &ValueError{s.Key, s.Value, s.From, want, kind})
		}
		if slices.Contains(denied, s.Key) || slices.Contains(denied, v.keys.alias[s.Key].Key) {
			refuse("this key must not be changed at run time", ErrDenied)
			continue
		}
		if why, ok := v.keys.inert[s.Key]; ok {
			refuse("this key has no effect here: "+why, ErrNotLive)
			continue
		}
		v.keys.apply(next, r, s, here, true)
	}
	var changes []Change
	for _, e := range v.keys.keys {
		old, now := e.text(v.field(e)), e.text(next.field(e))
		from, set := next.from[e.name]
		switch {
		case !set:
		case old == now:
			delete(next.from, e.name) // it stays what it was
		case !e.live:
			r.errs = append(r.errs, &ValueError{e.name, now, from, "write it into the file and start again, it stays " + old + " until then", ErrNotLive})
		default:
			changes = append(changes, Change{e.name, old, now})
		}
	}
	for name, from := range v.from {
		if _, ok := next.from[name]; !ok {
			next.from[name] = from
		}
	}
	said := len(r.notices)
	next, notices, err := next.complete(r)
	// What was said of other keys when they were loaded is not said again.
	notices = append(notices[:said:said], slices.DeleteFunc(notices[said:], func(n Notice) bool { _, ok := here[n.Key]; return !ok })...)
	if err != nil {
		return nil, nil, notices, err
	}
	return next, changes, notices, nil
}

// Append prints all keys, or the important ones, as a property file, the origin of each in a comment
// above it.
func (v *Values[T]) Append(dst []byte, importantOnly bool) []byte {
	for _, e := range v.keys.keys {
		if importantOnly && !e.important {
			continue
		}
		dst = append(dst, "# "...)
		dst = appendEscaped(dst, string(v.Origin(e.name)), "")
		dst = append(dst, '\n')
		dst = AppendProperty(dst, e.name, e.text(v.field(e)))
	}
	return dst
}

// Review collects what [Spec.Complete] has to say.
type Review struct {
	text    func(key string) string
	origin  func(key string) Origin
	notices []Notice
	errs    []error
}

// Set says whether anybody set key.
func (r *Review) Set(key string) bool { return r.origin(key) != Default }

// Refuse complains about the value of key; want names the limit and what to do.
func (r *Review) Refuse(key, want string) {
	r.errs = append(r.errs, &ValueError{key, r.text(key), r.origin(key), want, nil})
}

// Fail adds a complaint that names its key itself. nil is none.
func (r *Review) Fail(err error) {
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// Note adds a notice about key.
func (r *Review) Note(key, text string) {
	r.notices = append(r.notices, Notice{key, text, r.origin(key)})
}
