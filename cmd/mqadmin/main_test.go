package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"rmq/engine"
	"rmq/message"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mqadmin": main})
}

// options are those of the stores in the scripts.
func options(dir string) engine.Options {
	return engine.Options{
		Dir: dir, SegmentBytes: 16 << 10, QueueFileBytes: 400, MaxHashSlots: 64, MaxIndexEntries: 128, MaxMessageBytes: 4 << 10,
		Retention: engine.RetentionOptions{Disabled: true},
	}
}

// The commands do what their help says: exit codes, what stands on stdout and on stderr, what is left in
// directories. Scripts are in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkstore": mkstore, "remanifest": remanifest, "poke": poke, "openstore": openStore, "opens": opens, "exits": exits,
		},
	})
}

// remanifest FILE OLD NEW changes the text of a manifest and gives it a sum that fits.
func remanifest(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	_, body, ok := strings.Cut(ts.ReadFile(args[0]), "\n")
	if !ok || !strings.Contains(body, args[1]) {
		ts.Fatalf("%s does not say %s: %s", name, args[1], body)
	}
	body = strings.Replace(body, args[1], args[2], 1)
	ts.Check(os.WriteFile(name, []byte(fmt.Sprintf("%08x\n%s", crc32.ChecksumIEEE([]byte(body)), body)), 0o644))
}

// mkstore DIR N makes a store with N records, closed.
func mkstore(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	s, err := engine.Open(context.Background(), options(ts.MkAbs(args[0])))
	ts.Check(err)
	for i := range n {
		var p message.Properties
		p = message.AppendProperty(p, message.PropKeys, fmt.Sprintf("k%d", i))
		p = message.AppendProperty(p, message.PropTags, "TagA")
		rec, err := message.AppendRecord(nil, &message.Message{
			Topic: "Topic" + strconv.Itoa(i%2), QueueID: int32(i / 2 % 2), BornTimestamp: 1_700_000_000_000,
			BornHost: netip.MustParseAddrPort("10.0.0.1:54321"), StoreHost: netip.MustParseAddrPort("10.0.0.2:10911"),
			Body: bytes.Repeat([]byte{byte('a' + i%26)}, 600), Properties: p,
		})
		ts.Check(err)
		_, err = s.Append(context.Background(), rec)
		ts.Check(err)
	}
	ts.Check(s.Close())
}

// exits CODE COMMAND ARGS runs a command that must end with the code and print nothing on stdout.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v: %v, want exit %s", args[1:], err, args[0])
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("%v printed %q", args[1:], out)
	}
}

// poke FILE OFFSET HEX changes bytes of a file.
func poke(ts *testscript.TestScript, _ bool, args []string) {
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	b, err := hex.DecodeString(args[2])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	_, err = f.WriteAt(b, off)
	ts.Check(err)
	ts.Check(f.Close())
}

// openStore DIR opens a store and keeps it open until the script ends.
func openStore(ts *testscript.TestScript, _ bool, args []string) {
	s, err := engine.Open(context.Background(), options(ts.MkAbs(args[0])))
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Setenv("HOLDER", strconv.Itoa(os.Getpid()))
}

// opens DIR N checks that the engine opens a store and finds N records in its queues.
func opens(ts *testscript.TestScript, _ bool, args []string) {
	s, err := engine.Open(context.Background(), options(ts.MkAbs(args[0])))
	ts.Check(err)
	n := int64(0)
	for _, q := range s.Queues() {
		low, high, _ := s.QueueRange(q.Topic, q.ID)
		n += high - low
	}
	ts.Check(s.Close())
	if strconv.FormatInt(n, 10) != args[1] {
		ts.Fatalf("%s has %d records, want %s", args[0], n, args[1])
	}
}

// Java names of flags and ours are the same flag.
func TestKebab(t *testing.T) {
	for java, ours := range map[string]string{"mappedFileSizeCommitLog": "mapped-file-size-commit-log", "maxIndexNum": "max-index-num", "json": "json", "in-place": "in-place", "showClientIP": "show-client-ip", "IPList": "ip-list", "print-Log": "print-log"} {
		require.EqualValues(t, ours, kebab(&pflag.FlagSet{}, java))
	}
}

// Sizes come with and without units; what is none says how to write one.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "1073741824": 1 << 30, "1GiB": 1 << 30, "64KiB": 64 << 10, "400": 400} {
		n, err := parseSize("f", text)
		require.NoError(t, err)
		require.Equal(t, want, n, text)
	}
	for _, bad := range []string{"x", "-1", "0", "3", "1TB", "9999999999", "99GiB", "KiB"} {
		_, err := parseSize("f", bad)
		require.ErrorContains(t, err, "--f="+bad+" is no size of a file: use bytes", bad)
	}
}
