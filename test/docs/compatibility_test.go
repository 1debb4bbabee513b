package docs

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/broker"
	"rmq/internal/config"
	"rmq/namesrv"
	"rmq/remoting/protocol"
)

var update = flag.Bool("update", false, "write the documents")

const (
	compatibility = "../../docs/COMPATIBILITY.md"
	evidenceFile  = "testdata/evidence.txt"
)

// Proves that docs/COMPATIBILITY.md says what the tables of requests and keys say, and that whatever it
// calls done is shown by a test that exists.
func TestCompatibility(t *testing.T) {
	text := compatibilityText(t)
	if *update {
		require.NoError(t, os.WriteFile(compatibility, []byte(text), 0o644))
	}
	have, err := os.ReadFile(compatibility)
	require.NoError(t, err)
	require.Equal(t, text, string(have), "run `make generate`")
}

// evidence is what the code cannot say of a request or key: the tests that show it, and why it is less
// than done.
type evidence struct {
	tests []string
	state string // "": done
	why   string
	used  bool
}

var (
	evidenceLine = regexp.MustCompile(`^(\S+)((?: +[^ |]+)*)(?: *\| *(partial|no): (.+))?$`)
	javaSuite    = "../interop/wire/java/src/main/java/suite/"
)

func readEvidence(t *testing.T) map[string]*evidence {
	t.Helper()
	text, err := os.ReadFile(evidenceFile)
	require.NoError(t, err)
	all := map[string]*evidence{}
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		m := evidenceLine.FindStringSubmatch(line)
		require.NotNil(t, m, "evidence: %q", line)
		require.NotContains(t, all, m[1])
		e := &evidence{tests: strings.Fields(m[2]), state: m[3], why: m[4]}
		for _, name := range e.tests {
			requireTest(t, m[1], name)
		}
		all[m[1]] = e
	}
	return all
}

// requireTest finds a test: broker.TestSend in ../../broker, AdminTest.topics in the suite of the Java
// clients, cmd/mqbroker/life among the scripts of a command.
func requireTest(t *testing.T, of, name string) {
	t.Helper()
	i := strings.LastIndexAny(name, "./")
	place, test := name[:i], name[i+1:]
	files, want := filepath.Join("../..", place, "*_test.go"), "\nfunc "+test+"(t *testing.T) {"
	switch {
	case name[i] == '/':
		files, want = filepath.Join("../..", place, "testdata/script", test+".txtar"), ""
	case strings.HasSuffix(place, "Test"):
		files, want = javaSuite+place+".java", "public void "+test+"()"
	}
	paths, err := filepath.Glob(files)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(paths, func(path string) bool {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Contains(string(text), want)
	}), "%s: there is no test %s", of, name)
}

// cells are the name, the state and what shows it or why it is not so.
func (e *evidence) cells(t *testing.T, name, state, why string) []string {
	t.Helper()
	if e != nil {
		e.used = true
		if e.state != "" {
			require.NotEqual(t, "no", state, "%s: the code says no, and why", name)
			state, why = e.state, e.why
		}
		if why != "" && len(e.tests) > 0 {
			why += "; "
		}
		why += strings.Join(quoted(e.tests), ", ")
		require.False(t, state == "done" && len(e.tests) == 0, "%s is done and names no test in %s", name, evidenceFile)
	}
	require.NotEmpty(t, why, "%s: %s needs a line with its test in %s", name, state, evidenceFile)
	return []string{"`" + name + "`", state, why}
}

func quoted(names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, "`"+n+"`")
	}
	return all
}

func table(b *strings.Builder, head []string, rows [][]string) {
	for _, cells := range append([][]string{head, slices.Repeat([]string{"---"}, len(head))}, rows...) {
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

type reason struct {
	why   string
	codes func(c protocol.RequestCode) bool
}

// whyNot are the requests that nobody answers, by the reason.
var whyNot = []reason{
	{"not planned: controller mode", among(1001, 1018)},
	{"not planned: broker container", among(902, 903)},
	{"not planned: static topics", among(513, 513)},
	{"not planned: acting master", among(905, 905)},
	{"not planned: tiered and cold storage", among(2001, 2004)},
	{"not planned: there is no RocksDB store", among(354, 355)},
	{"later: transactional messages", oneOf("END_TRANSACTION", "CHECK_TRANSACTION_STATE", "RESUME_CHECK_HALF_MESSAGE")},
	{"later: request-reply", oneOf("SEND_REPLY_MESSAGE", "SEND_REPLY_MESSAGE_V2", "PUSH_REPLY_MESSAGE_TO_CLIENT")},
	{"later: messages for any time", oneOf("RECALL_MESSAGE", "GET_TIMER_CHECK_POINT", "GET_TIMER_METRICS")},
	{"later: POP consumption", func(c protocol.RequestCode) bool { return c > 200_000 || c >= 400 && c <= 402 }},
	{"later: access control", func(c protocol.RequestCode) bool { return c >= 50 && c <= 54 || c >= 3001 && c <= 3010 }},
	{"later: replication", oneOf("EXCHANGE_BROKER_HA_INFO", "RESET_MASTER_FLUSH_OFFSET")},
	{"nobody sends it any more", oneOf("QUERY_BROKER_OFFSET", "GET_TOPIC_CONFIG_LIST", "GET_TOPIC_NAME_LIST", "TRIGGER_DELETE_FILES", "GET_CLIENT_CONFIG",
		"SUSPEND_CONSUMER", "RESUME_CONSUMER", "RESET_CONSUMER_OFFSET_IN_CONSUMER", "RESET_CONSUMER_OFFSET_IN_BROKER",
		"ADJUST_CONSUMER_THREAD_POOL", "WHO_CONSUME_THE_MESSAGE", "REGISTER_FILTER_SERVER", "REGISTER_MESSAGE_FILTER_CLASS")},
}

func among(from, to protocol.RequestCode) func(protocol.RequestCode) bool {
	return func(c protocol.RequestCode) bool { return from <= c && c <= to }
}

func oneOf(names ...string) func(protocol.RequestCode) bool {
	return func(c protocol.RequestCode) bool { return slices.Contains(names, c.String()) }
}

// sent are the requests that a broker sends to clients.
var sent = []protocol.RequestCode{
	protocol.RequestNotifyConsumerIDsChanged, protocol.RequestResetConsumerClientOffset, protocol.RequestGetConsumerStatusFromClient,
}

func requestRows(t *testing.T, shown map[string]*evidence) [][]string {
	t.Helper()
	answered, refused := broker.SupportedCodes()
	ofNamesrv := namesrv.SupportedCodes()
	var rows [][]string
	for _, code := range protocol.RequestCodes() {
		var by []string
		for _, side := range []struct {
			name  string
			codes []protocol.RequestCode
		}{{"broker", answered}, {"name server", ofNamesrv}, {"client, asked by a broker", sent}} {
			if slices.Contains(side.codes, code) {
				by = append(by, side.name)
			}
		}
		name, state, why := code.String(), "done", ""
		if len(by) == 0 {
			i := slices.IndexFunc(whyNot, func(r reason) bool { return r.codes(code) })
			require.GreaterOrEqual(t, i, 0, "%s: say why nobody answers it", name)
			state, why = "no", whyNot[i].why
		}
		if slices.Contains(refused, code) {
			by = append(by, "broker, which refuses it")
		}
		rows = append(rows, append([]string{strconv.Itoa(int(code)), strings.Join(by, ", ")}, shown[name].cells(t, name, state, why)...))
	}
	return rows
}

// refusal is what a configuration is told of a key that it must not have so, "" for nothing.
func refusal(err error, key string) string {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range all.Unwrap() {
			if want := refusal(err, key); want != "" {
				return want
			}
		}
	}
	var refused *config.ValueError
	if errors.As(err, &refused) && refused.Key == key {
		return refused.Want
	}
	return ""
}

// keyRows asks a program what it makes of every value of a key that has few.
func keyRows(t *testing.T, program string, known []config.Known, shown map[string]*evidence, load func(text string) error) [][]string {
	t.Helper()
	var rows [][]string
	states := map[string]string{}
	for _, k := range known {
		state, why := "done", ""
		switch {
		case k.Inert != "":
			state, why = "no", "accepted with a notice: "+k.Inert
		case k.Alias != "":
			state, why = states[k.Alias], "another name of `"+k.Alias+"`"
		}
		for _, value := range k.Values {
			if want := refusal(load(k.Name+"="+value), k.Name); want != "" {
				state, why = "partial", strings.TrimPrefix(why+"; ", "; ")+"`"+value+"` is refused: "+want
			}
		}
		if state == "partial" && slices.Equal(k.Values, config.Bools) {
			state = "no"
		}
		cells := shown[program+"."+k.Name].cells(t, k.Name, state, why)
		states[k.Name] = cells[1]
		rows = append(rows, cells)
	}
	return rows
}

const preface = `# Compatibility

What of Apache RocketMQ 4.9 and 5.x is here: each request of the protocol and each configuration key. *done* works as
there and is shown by the test named; *partial* says what is missing; *no* says why. Unmodified clients, the admin
library and mqadmin of 4.9.8 and 5.4.0 are run against it by ` + "`make interop`" + `.

This file is written by ` + "`make generate`" + ` from the tables in the code and from test/docs/testdata/evidence.txt.

Not planned: controller mode, acting master, static topics, LMQ, compaction topics, tiered storage, broker container.
What is not built is refused, and never taken for something else.

Where it differs on purpose:

- Under SYNC_FLUSH every message is on the disk before it is acknowledged, WAIT=false too.
- A wait for the disk ends after 2.8 s unless syncFlushTimeout says otherwise, before stock clients give up at 3 s; the
  answer then has the remark [UNKNOWN_OUTCOME]. slaveReadEnable is true unless set.
- An empty body is a message. A request that lacks a field is told which one.
- Asking for a queue or a group does not create it. cloneGroupOffset without a topic clones all of them; a list of topics
  is taken whole, whatever is in force of it already.
- GET_BROKER_RUNTIME_INFO with roleOnly=true, which is ours, tells only who leads.

` + "`TestSameAnswers`" + ` of test/interop/wire asks this broker and name server and Apache's the same questions, right and wrong ones.
`

func compatibilityText(t *testing.T) string {
	t.Helper()
	shown := readEvidence(t)
	noEnv := func(string) string { return "" }
	var b strings.Builder
	crossed, err := os.ReadFile(filepath.Join("testdata", "crossings.md")) // with what was seen, which no test can know
	require.NoError(t, err)
	b.WriteString(preface + "\n" + string(crossed) + "\n## Requests\n\nAny other code is answered with REQUEST_CODE_NOT_SUPPORTED (3).\n\n")
	table(&b, []string{"Code", "Answered by", "Request", "State", "Shown by, or why not"}, requestRows(t, shown))
	b.WriteString("\n## Keys of broker.conf\n\n")
	keyHead := []string{"Key", "State", "Shown by, or why not"}
	table(&b, keyHead, keyRows(t, "broker", broker.KnownKeys(), shown, func(text string) error {
		_, _, err := broker.LoadConfig(broker.LoadOptions{Text: []byte(text), Getenv: noEnv, LocalIP: func() string { return "127.0.0.1" }})
		return err
	}))
	b.WriteString("\n## Keys of namesrv.properties\n\n")
	table(&b, keyHead, keyRows(t, "namesrv", namesrv.KnownKeys(), shown, func(text string) error {
		_, _, err := namesrv.LoadConfig(namesrv.LoadOptions{Text: []byte(text), Getenv: noEnv})
		return err
	}))
	for name, e := range shown {
		require.True(t, e.used, "evidence of %s, which is nowhere", name)
	}
	return b.String()
}
