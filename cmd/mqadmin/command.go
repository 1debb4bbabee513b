package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rmq/client"
	"rmq/internal/config"
)

// command is one row of the table of subcommands that speak with a cluster.
type command struct {
	name  string
	short string
	// setup declares the flags, stock names and letters, and gives what the command does with them.
	setup func(f *flags) action
}

// action does a command's work. The result is shown by [show]; nil shows nothing. It may come with an
// error: what was done before one is shown too.
type action func(ctx context.Context, t *tool) (any, error)

// family is the commands of one file, under a heading of the help.
type family struct {
	id, title string
	commands  []command
}

func families() []family {
	return []family{
		{"cluster", "Clusters and brokers:", slices.Concat(clusterCommands(), brokerCommands(), replicaCommands())},
		{"namesrv", "Name servers:", namesrvCommands()},
		{"topic", "Topics:", slices.Concat(topicCommands(), topicInfoCommands())},
		{"group", "Consumer groups, producers and offsets:", slices.Concat(groupCommands(), consumerCommands(), offsetCommands())},
		{"message", "Messages:", slices.Concat(messageCommands(), readCommands(), sendCommands())},
		{"export", "Exports and watching:", slices.Concat(exportCommands(), monitorCommands())},
	}
}

// tool is what a command works with.
type tool struct {
	admin  *client.Admin
	out    io.Writer
	json   bool
	stderr io.Writer
}

func (t *tool) client() *client.Client { return t.admin.Client() }

// note tells the user something on the side.
func (t *tool) note(format string, args ...any) {
	fmt.Fprintf(t.stderr, "mqadmin: "+format+"\n", args...)
}

// defaultNamesrv is asked when neither -n nor NAMESRV_ADDR says whom to ask.
const defaultNamesrv = "127.0.0.1:9876"

func newClusterCmd(c command, group string, stdout, stderr io.Writer) *cobra.Command {
	var namesrv string
	var asJSON bool
	cmd := &cobra.Command{Use: c.name, Short: c.short, GroupID: group, Args: noArgs}
	f := &flags{FlagSet: cmd.Flags()}
	f.SortFlags = false
	act := c.setup(f)
	f.StringVarP(&namesrv, "namesrv-addr", "n", os.Getenv("NAMESRV_ADDR"), "name servers, `host:port;host:port` (default $NAMESRV_ADDR, else "+defaultNamesrv+")")
	f.Lookup("namesrv-addr").DefValue = ""
	f.BoolVar(&asJSON, "json", false, "print JSON")
	if f.words != nil {
		cmd.Use += " " + strings.Join(f.words, "|")
		cmd.Args, cmd.ValidArgs = f.oneWord, f.words
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.words != nil {
			f.word = args[0]
		}
		if err := f.check(cmd.CommandPath()); err != nil {
			return err
		}
		if namesrv == "" {
			namesrv = defaultNamesrv
		}
		cl, err := client.New(client.Options{NameServers: namesrv, Timeout: 5 * time.Second})
		if err != nil {
			return usage("--namesrv-addr=%s: %v", namesrv, err)
		}
		t := &tool{admin: cl.Admin(), out: stdout, stderr: stderr, json: asJSON}
		res, err := act(cmd.Context(), t)
		if res != nil {
			err = errors.Join(show(stdout, res, asJSON), err)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Second)
		defer cancel()
		return advise(errors.Join(err, cl.Close(ctx)), namesrv)
	}
	return cmd
}

// noArgs refuses words that belong to no flag.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes flags only, not %q: see %s --help", cmd.Name(), args[0], cmd.CommandPath())
	}
	return nil
}

// oneWord refuses anything but one of the words.
func (f *flags) oneWord(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || !slices.Contains(f.words, args[0]) {
		return usage("say one of %s: see %s --help", strings.Join(f.words, ", "), cmd.CommandPath())
	}
	return nil
}

// choice declares a word, before or behind the flags, that says what to do.
func (f *flags) choice(words ...string) *string {
	f.words = words
	return &f.word
}

// flags declares the flags of one command, and knows which of them must be given.
type flags struct {
	*pflag.FlagSet
	required []string
	oneOf    [][]string
	words    []string // one of which must be said
	word     string
}

func (f *flags) text(name, letter, value, usage string) *string {
	return f.StringP(name, letter, value, usage)
}

// need declares a text that must be given.
func (f *flags) need(name, letter, usage string) *string {
	f.required = append(f.required, name)
	return f.StringP(name, letter, "", usage+" (required)")
}

func (f *flags) number(name, letter string, value int64, usage string) *int64 {
	return f.Int64P(name, letter, value, usage)
}

// needNumber declares a number that must be given.
func (f *flags) needNumber(name, letter, usage string) *int64 {
	f.required = append(f.required, name)
	v := f.Int64P(name, letter, 0, usage+" (required)")
	f.Lookup(name).DefValue = "0"
	return v
}

// needQueue declares the number of a queue, which must be given.
func (f *flags) needQueue(name, letter string) *int32 {
	f.required = append(f.required, name)
	return f.Int32P(name, letter, 0, "number of the queue (required)")
}

// address declares -b, the address of a broker.
func (f *flags) address(name, usage string) *string {
	var v string
	f.VarP((*address)(&v), name, "b", usage)
	return &v
}

// needAddress declares one that must be given.
func (f *flags) needAddress(name, usage string) *string {
	f.required = append(f.required, name)
	return f.address(name, usage+" (required)")
}

// flag declares a flag without a value.
func (f *flags) flag(name, letter, usage string) *bool { return f.BoolP(name, letter, false, usage) }

// truth declares a flag whose value is true or false.
func (f *flags) truth(name, letter string, value bool, usage string) *bool {
	v := truth(value)
	f.VarP(&v, name, letter, usage)
	return (*bool)(&v)
}

// ignored declares a flag that stock tools have and that means nothing here.
func (f *flags) ignored(name, letter, why string) { f.StringP(name, letter, "", "accepted: "+why) }

// choose has the user give at least one of some flags, all declared already.
func (f *flags) choose(names ...string) { f.oneOf = append(f.oneOf, names) }

// target declares the two ways to say which brokers are meant: -b one, -c those of a cluster.
func (f *flags) target(verb string) *target {
	t := &target{}
	f.VarP((*address)(&t.addr), "broker-addr", "b", verb+" the broker at this `host:port`")
	f.StringVarP(&t.cluster, "cluster-name", "c", "", verb+" the brokers of this cluster")
	return t
}

func (f *flags) check(path string) error {
	for _, name := range f.required {
		if l := f.Lookup(name); l.Value.String() == "" || !l.Changed {
			return usage("give %s: see %s --help", flagName(l), path)
		}
	}
	for _, names := range f.oneOf {
		given := 0
		var all []string
		for _, name := range names {
			l := f.Lookup(name)
			if l.Changed && l.Value.String() != "" {
				given++
			}
			all = append(all, flagName(l))
		}
		if given != 1 {
			return usage("give one of %s: see %s --help", strings.Join(all, " and "), path)
		}
	}
	return nil
}

func flagName(l *pflag.Flag) string {
	if l.Shorthand == "" {
		return "--" + l.Name
	}
	return "-" + l.Shorthand + " (--" + l.Name + ")"
}

// truth is a flag whose value is true or false, in a word of its own as stock tools want it.
type truth bool

func (v *truth) String() string { return strconv.FormatBool(bool(*v)) }
func (v *truth) Type() string   { return "true|false" }

func (v *truth) Set(text string) error {
	b, err := strconv.ParseBool(strings.ToLower(text))
	if err != nil {
		return errors.New("say true or false")
	}
	*v = truth(b)
	return nil
}

// address is a flag whose value is host:port.
type address string

func (v *address) String() string { return string(*v) }
func (v *address) Type() string   { return "host:port" }

func (v *address) Set(text string) error {
	if host, port, err := net.SplitHostPort(text); err != nil || host == "" || port == "" {
		return errors.New("write host:port, like 127.0.0.1:10911")
	}
	*v = address(text)
	return nil
}

// target says which brokers a command is about.
type target struct{ addr, cluster string }

// masters are the masters that are meant.
func (x *target) masters(ctx context.Context, t *tool) ([]string, error) {
	return x.addrs(ctx, t.admin.Masters)
}

// all are the masters and slaves that are meant.
func (x *target) all(ctx context.Context, t *tool) ([]string, error) {
	return x.addrs(ctx, t.admin.Brokers)
}

func (x *target) addrs(ctx context.Context, of func(context.Context, string) ([]string, error)) ([]string, error) {
	if x.addr != "" {
		return []string{x.addr}, nil
	}
	addrs, err := of(ctx, x.cluster)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("cluster %s: %w: none of its brokers is alive", x.cluster, client.ErrNoBroker)
	}
	return addrs, err
}

// parseTime reads what stock tools take for a time: now, milliseconds since 1970, or 2006-01-02#15:04:05:000.
func parseTime(flag, text string) (time.Time, error) {
	if text == "now" {
		return time.Now(), nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	if i := strings.LastIndexByte(text, ':'); i > 0 && strings.Count(text, ":") == 3 {
		if t, err := time.ParseInLocation("2006-01-02#15:04:05.000", text[:i]+"."+text[i+1:], time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("--%s=%s is no time: write now, milliseconds since 1970, or like 2026-01-31#23:59:59:000", flag, text)
}

// advise adds to an error what the user can do about it.
func advise(err error, namesrv string) error {
	var bad *usageError
	switch {
	case err == nil, errors.As(err, &bad):
		return err
	case errors.Is(err, client.ErrNoRoute) && strings.Contains(err.Error(), retryPrefix):
		return fmt.Errorf("%w: no member of it was ever online, see mqadmin consumerProgress, or give a topic with -t", err)
	case errors.Is(err, client.ErrNoRoute):
		return fmt.Errorf("%w: see mqadmin topicList, or make it with mqadmin updateTopic -c CLUSTER -t TOPIC", err)
	case strings.Contains(err.Error(), "connect to "+firstServer(namesrv)):
		return fmt.Errorf("%w: no name server answers there, give another one with -n or NAMESRV_ADDR", err)
	}
	return err
}

func firstServer(namesrv string) string {
	first, _, _ := strings.Cut(namesrv, ";")
	return first
}

// absent are commands of stock tools that have nothing to work on here, by what they would need.
var absent = map[string][]string{
	"access control": {
		"createUser", "updateUser", "deleteUser", "getUser", "listUser", "copyUser", "createAcl", "updateAcl", "deleteAcl", "getAcl", "listAcl", "copyAcl",
		"updateAclConfig", "deleteAclConfig", "deleteAccessConfig", "clusterAclConfigVersion", "updateGlobalWhiteAddr", "getAclConfig",
	},
	"a controller": {
		"getSyncStateSet", "electMaster", "getControllerMetaData", "getControllerConfig", "updateControllerConfig", "cleanBrokerMetadata",
	},
	"replication":        {"resetMasterFlushOffset"},
	"POP consumption":    {"setConsumeMode", "exportPopRecord"},
	"timers":             {"switchTimerEngine"},
	"static topics":      {"updateStaticTopic", "remappingStaticTopic"},
	"a broker container": {"addBroker", "removeBroker"},
	"compaction topics":  {"dumpCompactionLog"},
	"cold data":          {"getColdDataFlowCtrInfo", "updateColdDataFlowCtrGroupConfig", "removeColdDataFlowCtrGroupConfig", "setCommitLogReadAheadMode"},
	"a RocksDB store":    {"exportMetadataInRocksDB", "rocksDBConfigToJson", "checkRocksdbCqWriteProgress"},
}

// newAbsentCmd is a command that says why it is not here, whatever its flags.
func newAbsentCmd(name, need string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: "Not here: it is for " + need, Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return usage("%s is for %s, which this version does not have", name, need)
		},
	}
}

// suggest refuses words that are no command and names what was probably meant.
func suggest(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if near := config.Nearest(args[0], names); near != "" {
		return usage("%s knows no %q: did you mean %s? See %s --help", cmd.CommandPath(), args[0], near, cmd.CommandPath())
	}
	return usage("%s knows no %q: see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
}
