package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"rmq/internal/config"
)

// Flags are what a command line says.
type Flags struct {
	File   string // -c; "" for none
	Text   []byte // what is in it
	Strict bool   // an unknown key is an error
	// Settings are the keys that were given as flags, in order.
	Settings []config.Setting

	notices            []config.Notice
	printAll, printTop bool
	help               bool
}

// keyFlag is a key of the configuration as a flag.
type keyFlag struct {
	key string
	f   *Flags
}

func (k keyFlag) String() string { return "" }
func (k keyFlag) Type() string   { return "value" }
func (k keyFlag) Set(value string) error {
	k.f.Settings = append(k.f.Settings, config.Setting{Key: k.key, Value: value, From: config.FromFlag(config.FlagName(k.key))})
	return nil
}

// nameServers is the key that -n sets.
const nameServers = "namesrvAddr"

// parse reads the arguments of a daemon with these keys. Flags have Java's spelling or ours.
func parse(name string, keys, args []string) (*Flags, *pflag.FlagSet, error) {
	f := &Flags{}
	set := pflag.NewFlagSet(name, pflag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.SortFlags = false
	set.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(config.FlagName(name))
	})
	set.StringVarP(&f.File, "config-file", "c", "", "property file")
	set.BoolVarP(&f.printAll, "print-config-item", "p", false, "print all keys with their values and origins, and end")
	set.BoolVarP(&f.printTop, "print-important-config", "m", false, "print the important ones, and end")
	set.BoolVarP(&f.help, "help", "h", false, "print this, and end")
	set.BoolVar(&f.Strict, "strict-config", false, "refuse to start over a key that nobody knows")
	if slices.Contains(keys, nameServers) {
		set.VarP(keyFlag{nameServers, f}, nameServers, "n", "name servers, host:port;host:port")
	} else {
		set.StringP(nameServers, "n", "", "accepted for old scripts: a name server asks no other")
	}
	for _, key := range keys {
		if set.Lookup(key) == nil {
			set.Var(keyFlag{key, f}, key, "")
			set.Lookup(key).Hidden = true
		}
	}
	if err := set.Parse(args); err != nil {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			known := []string{"configFile", "printConfigItem", "printImportantConfig", "strictConfig"}
			if near := config.Nearest(unknown.GetSpecifiedName(), append(known, keys...)); near != "" && len(unknown.GetSpecifiedName()) > 1 {
				return nil, nil, fmt.Errorf("%w, did you mean --%s?", err, config.FlagName(near))
			}
		}
		return nil, nil, fmt.Errorf("%w: see %s --help", err, name)
	}
	if len(set.Args()) > 0 {
		return nil, nil, fmt.Errorf("%q is no flag: see %s --help", set.Arg(0), name)
	}
	if set.Changed(nameServers) && !slices.Contains(keys, nameServers) {
		f.notices = append(f.notices, config.Notice{Key: nameServers, Text: "has no effect here: a name server asks no other", From: config.FromFlag("namesrv-addr")})
	}
	if f.File != "" {
		var err error
		if f.Text, err = os.ReadFile(f.File); err != nil {
			return nil, nil, fmt.Errorf("read -c: %w", err)
		}
	}
	return f, set, nil
}

func usage(d *Daemon, set *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage: %s [flags]\n\n%s\n", d.Summary, d.Name, set.FlagUsages())
	fmt.Fprintf(&b, "Every key of the property file is a flag too: --%s=VALUE sets %s. -p lists the keys.\n", config.FlagName(d.Keys[0]), d.Keys[0])
	return b.String()
}
