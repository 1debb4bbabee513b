package config

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type sample struct {
	Name    string        `prop:"name,important"`
	Port    int           `prop:"listenPort,important,min=1,max=65535"`
	On      bool          `prop:"pollingEnable,live"`
	Offset  int64         `prop:"offset,min=-1"`
	Bytes   Size          `prop:"fileSize,min=1,max=2G"`
	Wait    time.Duration `prop:"waitMills,unit=ms,live"`
	Keep    time.Duration `prop:"keepTime,unit=h"`
	Role    string        `prop:"role,oneof=MASTER|SLAVE"`
	Peers   []string      `prop:"peers,live"`
	Locked  []string      `prop:"locked"`
	Scratch int           // no setting
	Derived string        `prop:"derivedName"`
	Free    int           `prop:"free,live"`
}

func sampleKeys() *Keys[sample] {
	return KeysOf(Spec[sample]{
		Aliases: []Alias{
			{Name: "oldName", Key: "name"},
			{Name: "fileUnits", Key: "fileSize", Convert: func(s string) (string, string) { return s + "K", "units are 1024 bytes" }},
		},
		Inert: []Inert{{Why: "there is no such thing", Keys: []string{"ghostEnable", "ghostInterval"}}},
		Complete: func(v *sample, r *Review) {
			if v.Derived == "" {
				v.Derived = v.Name + "-d"
			}
			if v.Free == 13 {
				r.Refuse("free", "use another number")
			}
			if v.Port == 80 && r.Set("listenPort") {
				r.Note("listenPort", "needs root")
			}
		},
		Denied: func(v *sample) []string { return v.Locked },
	})
}

func sampleDefaults() sample {
	return sample{Name: "n", Port: 10911, Bytes: 1 << 30, Wait: time.Second, Keep: 72 * time.Hour, Role: "MASTER", Locked: []string{"name", "free"}}
}

func loadText(t *testing.T, text string) (*Values[sample], []Notice, error) {
	t.Helper()
	settings, err := FileSettings("a.conf", []byte(text))
	require.NoError(t, err)
	return sampleKeys().Load(sampleDefaults(), false, settings)
}

// Proves that every type reads, in each spelling, and that layers cover each other.
func TestLoad(t *testing.T) {
	file, err := FileSettings("a.conf", []byte(`
name = "broker a"
listenPort=80
pollingEnable=TRUE
offset=-1
fileSize = 2G
waitMills=1500
keepTime: 48
role=SLAVE
peers = a:1; 'b:2';;
`))
	require.NoError(t, err)
	k := sampleKeys()
	v, notices, err := k.Load(sampleDefaults(), true,
		[]Setting{{"peers", "x", FromEnv("PEERS")}, {"free", "7", FromEnv("FREE")}}, file, []Setting{{"offset", "5", FromFlag("offset")}})
	require.NoError(t, err)
	want := sampleDefaults()
	want.Name, want.Port, want.On, want.Offset, want.Bytes, want.Role = "broker a", 80, true, 5, 2<<30, "SLAVE"
	want.Wait, want.Keep, want.Peers, want.Derived, want.Free = 1500*time.Millisecond, 48*time.Hour, []string{"a:1", "b:2"}, "broker a-d", 7
	require.Equal(t, want, *v.Get())
	require.Equal(t, []string{
		"a.conf:2: name: the quotes round broker a are dropped",
		"a.conf:3: listenPort: needs root",
	}, words(notices))
	for key, from := range map[string]Origin{
		"name": "a.conf:2", "peers": "a.conf:10", "free": "environment FREE", "offset": "flag --offset",
		"derivedName": Default, "locked": Default, "oldName": "", "ghostEnable": "", "Scratch": "",
	} {
		require.Equal(t, from, v.Origin(key), key)
	}
	text, ok := v.Text("keepTime")
	require.Equal(t, "48 true", text+" "+map[bool]string{true: "true"}[ok])
	_, ok = v.Text("oldName")
	require.False(t, ok)
	require.Equal(t, []string{"name", "listenPort", "pollingEnable", "offset", "fileSize", "waitMills", "keepTime", "role", "peers", "locked", "derivedName", "free"}, k.Names())
}

func words(notices []Notice) []string {
	var all []string
	for _, n := range notices {
		all = append(all, n.String())
	}
	return all
}

// Proves what is said about settings that are taken all the same.
func TestNotices(t *testing.T) {
	for text, want := range map[string]string{
		"name='x'":                     "a.conf:1: name: the quotes round x are dropped",
		"oldName=x":                    "a.conf:1: oldName: read as name=x",
		"fileUnits=3":                  "a.conf:1: fileUnits: read as fileSize=3K, units are 1024 bytes",
		"ghostEnable=maybe":            "a.conf:1: ghostEnable: has no effect here: there is no such thing",
		"name=a\nname=b":               "a.conf:2: name: takes the place of name=a from a.conf:1",
		"\noldName=a\nname=b":          "a.conf:2: oldName: read as name=a|a.conf:3: name: takes the place of oldName=a from a.conf:2",
		"name=a\nname=a":               "",
		"listenport=1":                 "a.conf:1: listenport: unknown key, did you mean listenPort?",
		"listenPrt=1":                  "a.conf:1: listenPrt: unknown key, did you mean listenPort?",
		"ghostInterwal=1":              "a.conf:1: ghostInterwal: unknown key, did you mean ghostInterval?",
		"oldNamee=1":                   "a.conf:1: oldNamee: unknown key, did you mean name?",
		"somethingElseEntirely=1":      "a.conf:1: somethingElseEntirely: unknown key",
		"=1":                           "a.conf:1: : unknown key",
		"peers = \"a:1\" ; \"b:2\"":    "",
		"peers = \"a:1;b:2\"":          "a.conf:1: peers: the quotes round a:1;b:2 are dropped",
		"name=\" 'x' \"\nwaitMills=10": "a.conf:1: name: the quotes round x are dropped",
	} {
		_, notices, err := loadText(t, text)
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(words(notices), "|"), text)
	}
}

// Proves that every way of being wrong says where, what, the limit and what to do, and that all of
// them are said at once.
func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"listenPort=0":          "a.conf:1: listenPort is 0: use a whole number from 1 to 65535",
		"listenPort=":           "a.conf:1: listenPort is empty: use a whole number from 1 to 65535",
		"listenPort=80a":        "a.conf:1: listenPort is 80a: use a whole number from 1 to 65535",
		"offset=-2":             "a.conf:1: offset is -2: use a whole number from -1 on",
		"offset=1e3":            "a.conf:1: offset is 1e3: use a whole number from -1 on",
		"fileSize=3G":           "a.conf:1: fileSize is 3G: use a number of bytes, or one with K, M or G, from 1 to 2147483648",
		"fileSize=99999999999T": "a.conf:1: fileSize is 99999999999T: use a number of bytes, or one with K, M or G, from 1 to 2147483648",
		"pollingEnable=yes":     "a.conf:1: pollingEnable is yes: use true or false",
		"waitMills=1s":          "a.conf:1: waitMills is 1s: use a whole number of ms from 0 on",
		"keepTime=-1":           "a.conf:1: keepTime is -1: use a whole number of h from 0 on",
		"keepTime=9999999999":   "a.conf:1: keepTime is 9999999999: use a whole number of h from 0 on",
		"role=slave":            "a.conf:1: role is slave: use MASTER or SLAVE, in this spelling",
		"peers=a;\"b":           "a.conf:1: peers is a;\"b: leave the quotes out",
		"free=13":               "a.conf:1: free is 13: use another number",
		"free=13\n\nfileSize=0": "a.conf:3: fileSize is 0: use a number of bytes, or one with K, M or G, from 1 to 2147483648\na.conf:1: free is 13: use another number",
	} {
		v, _, err := loadText(t, text)
		require.EqualError(t, err, want)
		require.Nil(t, v)
		var bad *ValueError
		require.ErrorAs(t, err, &bad)
	}
	_, _, err := sampleKeys().Load(sample{Free: 13}, false)
	require.EqualError(t, err, "free is 13: use another number")
	_, _, err = sampleKeys().Load(sampleDefaults(), true, []Setting{{"listenPrt", "1", FromFlag("x")}})
	require.EqualError(t, err, "flag --x: listenPrt: unknown key, did you mean listenPort?")
	require.ErrorIs(t, err, ErrUnknownKey)
	_, err = FileSettings("a.conf", []byte(`a=\u1`))
	require.ErrorContains(t, err, "read a.conf: line 1: ")
}

// Proves that what is printed reads back as the same values, whatever they are.
func TestPrintRoundTrip(t *testing.T) {
	k := sampleKeys()
	rapid.Check(t, func(t *rapid.T) {
		var layer []Setting
		for _, name := range k.Names() {
			if rapid.Bool().Draw(t, "set "+name) {
				value := rapid.OneOf(rapid.String(), rapid.StringMatching(`["' ;\\ax#=\n]{0,8}`), rapid.StringMatching(`-?[0-9]{1,12}[KMG]?`),
					rapid.SampledFrom([]string{"true", "false", "MASTER", "SLAVE"})).Draw(t, name)
				layer = append(layer, Setting{name, value, FromFlag(name)})
			}
		}
		var v *Values[sample]
		for {
			var err error
			if v, _, err = k.Load(sampleDefaults(), true, layer); err == nil {
				break
			}
			var bad *ValueError
			require.ErrorAs(t, err, &bad)
			layer = without(layer, err)
		}
		for _, important := range []bool{false, true} {
			printed := v.Append(nil, important)
			again, err := FileSettings("again", printed)
			require.NoError(t, err)
			read, notices, err := k.Load(sampleDefaults(), true, again)
			require.NoError(t, err, "%s", printed)
			for _, n := range notices {
				require.NotContains(t, n.Text, "quotes", "%s", printed)
			}
			if !important {
				if d := cmp.Diff(*v.Get(), *read.Get()); d != "" {
					t.Fatalf("%s\n%s", printed, d)
				}
			}
		}
	})
}

// without drops the settings that err complains about.
func without(layer []Setting, err error) (rest []Setting) {
	for _, s := range layer {
		if !strings.Contains(err.Error(), string(s.From)+": ") {
			rest = append(rest, s)
		}
	}
	return rest
}

// Proves what -m prints, origins included.
func TestPrintImportant(t *testing.T) {
	v, _, err := loadText(t, "name=a \\u4e2d")
	require.NoError(t, err)
	require.Equal(t, "# a.conf:1\nname=a \\u4E2D\n# default\nlistenPort=10911\n", string(v.Append(nil, true)))
	require.Contains(t, string(v.Append(nil, false)), "# default\nwaitMills=1000\n# default\nkeepTime=72\n")
}

// Proves that an update changes what it may, all or nothing, and says what was before.
func TestUpdate(t *testing.T) {
	v, notices, err := loadText(t, "waitMills=10\nfree=4\nlistenPort=80")
	require.NoError(t, err)
	require.Len(t, notices, 1)
	by := Origin("update by 127.0.0.1")
	next, changes, notices, err := v.Update([]Setting{
		{"waitMills", "20", by}, {"pollingEnable", "'true'", by}, {"keepTime", "72", by}, {"peers", "", by},
	})
	require.NoError(t, err)
	require.Len(t, notices, 1)
	require.Equal(t, []Change{{"pollingEnable", "false", "true"}, {"waitMills", "10", "20"}}, changes)
	require.Equal(t, `waitMills: "10" → "20"`, changes[1].String())
	require.Equal(t, 10*time.Millisecond, v.Get().Wait)
	require.Equal(t, 20*time.Millisecond, next.Get().Wait)
	require.Equal(t, []Origin{by, Default, "a.conf:2"}, []Origin{next.Origin("waitMills"), next.Origin("keepTime"), next.Origin("free")})
	require.Equal(t, Origin("a.conf:1"), v.Origin("waitMills"))

	for _, c := range []struct {
		key, value, want string
		kind             error
	}{
		{"listenPort", "1", "update by 127.0.0.1: listenPort is 1: write it into the file and start again, it stays 80 until then", ErrNotLive},
		{"free", "1", "update by 127.0.0.1: free is 1: this key must not be changed at run time", ErrDenied},
		{"oldName", "1", "update by 127.0.0.1: oldName is 1: this key must not be changed at run time", ErrDenied},
		{"ghostEnable", "1", "update by 127.0.0.1: ghostEnable is 1: this key has no effect here: there is no such thing", ErrNotLive},
		{"waitMils", "1", "update by 127.0.0.1: waitMils: unknown key, did you mean waitMills?", ErrUnknownKey},
		{"waitMills", "-1", "update by 127.0.0.1: waitMills is -1: use a whole number of ms from 0 on", nil},
	} {
		none, changes, _, err := v.Update([]Setting{{"pollingEnable", "true", by}, {c.key, c.value, by}})
		require.EqualError(t, err, c.want)
		require.True(t, c.kind == nil || errors.Is(err, c.kind))
		require.Nil(t, none)
		require.Nil(t, changes)
	}

	open, _, err := loadText(t, "locked=")
	require.NoError(t, err)
	_, _, _, err = open.Update([]Setting{{"free", "13", by}})
	require.EqualError(t, err, "update by 127.0.0.1: free is 13: use another number")
}

// Proves that text from the wire is UTF-8.
func TestTextSettings(t *testing.T) {
	settings, err := TextSettings("update", []byte("name=é\nfree = 1"))
	require.NoError(t, err)
	require.Equal(t, []Setting{{"name", "é", "update"}, {"free", "1", "update"}}, settings)
	_, err = TextSettings("update", []byte(`a=\u`))
	require.ErrorContains(t, err, "read update: line 1: ")
}

// Proves that a table that contradicts itself is found when it is made.
func TestKeysOfPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"twice": func() {
			KeysOf(Spec[struct {
				A int `prop:"a"`
				B int `prop:"a"`
			}]{})
		},
		"no name": func() {
			KeysOf(Spec[struct {
				A int `prop:""`
			}]{})
		},
		"option": func() {
			KeysOf(Spec[struct {
				A int `prop:"a,what"`
			}]{})
		},
		"limit": func() {
			KeysOf(Spec[struct {
				A int `prop:"a,min=x"`
			}]{})
		},
		"limit of a string": func() {
			KeysOf(Spec[struct {
				A string `prop:"a,min=1"`
			}]{})
		},
		"unit": func() {
			KeysOf(Spec[struct {
				A time.Duration `prop:"a"`
			}]{})
		},
		"oneof": func() {
			KeysOf(Spec[struct {
				A int `prop:"a,oneof=1|2"`
			}]{})
		},
		"type": func() {
			KeysOf(Spec[struct {
				A float64 `prop:"a"`
			}]{})
		},
		"list": func() {
			KeysOf(Spec[struct {
				A []int `prop:"a"`
			}]{})
		},
		"alias": func() { KeysOf(Spec[sample]{Aliases: []Alias{{Name: "x", Key: "y"}}}) },
		"inert": func() { KeysOf(Spec[sample]{Inert: []Inert{{Keys: []string{"name"}}}}) },
	} {
		require.Panics(t, f, name)
	}
}

// Proves the spelling of flags.
func TestFlagName(t *testing.T) {
	for key, want := range map[string]string{
		"listenPort": "listen-port", "brokerIP1": "broker-ip1", "enableDLegerCommitLog": "enable-d-leger-commit-log",
		"sendMessageThreadPoolNums": "send-message-thread-pool-nums", "name": "name", "TLSPath": "tls-path",
	} {
		require.Equal(t, want, FlagName(key))
	}
}

// Proves that sizes do not wrap round.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "7": 7, "1k": 1024, "1K": 1024, "2m": 2 << 20, "3G": 3 << 30, "1T": 1 << 40, "9223372036854775807": math.MaxInt64} {
		got, err := parseSize(text)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "K", "1KB", "1.5G", "9223372036854775808", "9007199254740993K", "x"} {
		_, err := parseSize(text)
		require.Error(t, err, text)
	}
}
