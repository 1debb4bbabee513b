package process

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/daemon"
)

// poison is an error that wants its own exit code.
type poison struct{}

func (poison) Error() string { return "the log is damaged" }
func (poison) ExitCode() int { return 5 }

// fake is a daemon whose parts are given.
func fake(home string, r *Running, startErr error) *Daemon {
	return &Daemon{Name: "mqfake", Summary: "Does nothing.", Keys: []string{"rocketmqHome", "namesrvAddr"}, Load: func(*Flags) (*Loaded, error) {
		c := daemon.DefaultConfig()
		return &Loaded{Config: &c, Home: home, Start: func(context.Context, *daemon.Log) (*Running, error) { return r, startErr }}, nil
	}}
}

// Proves with which code a daemon ends that fails at work, cannot start or does not stop, that it is
// shut down in any case, and that no pid file stays.
func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name             string
		failed, stop     error
		code             int
		stderr, shutdown string
	}{
		{"poison", poison{}, nil, 5, "mqfake: the log is damaged\n", "shut down"},
		{"other", errors.New("boom"), nil, ExitFailed, "mqfake: boom\n", "shut down"},
		{"poison, stuck", poison{}, context.DeadlineExceeded, 5, "mqfake: the log is damaged; context deadline exceeded\n", "shut down"},
	} {
		home := t.TempDir()
		failed := make(chan error, 1)
		failed <- c.failed
		did := ""
		var stdout, stderr bytes.Buffer
		code := Main(fake(home, &Running{
			Role: "broker", Port: 1, Boot: "boot success", Failed: failed,
			Shutdown: func(context.Context) error { did = "shut down"; return c.stop },
		}, nil), nil, &stdout, &stderr)
		require.Equal(t, c.code, code, c.name)
		require.Equal(t, c.stderr, stderr.String())
		require.Equal(t, c.shutdown, did)
		require.Contains(t, stdout.String(), "boot success\n")
		left, err := filepath.Glob(filepath.Join(home, "run", "*"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
	var stdout, stderr bytes.Buffer
	require.Equal(t, ExitRefused, Main(fake(t.TempDir(), nil, errors.Join(errors.New("a"), errors.New("b"))), nil, &stdout, &stderr))
	require.Equal(t, "mqfake: a; b\n", stderr.String())
}

// Proves that a home in which no pid file can be written keeps no daemon from running.
func TestNoPlaceForPIDFile(t *testing.T) {
	home := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(home, nil, 0o644))
	failed := make(chan error, 1)
	failed <- errors.New("boom")
	var stdout, stderr bytes.Buffer
	require.Equal(t, ExitFailed, Main(fake(home, &Running{
		Role: "broker", Port: 1, Boot: "boot success", Failed: failed, Shutdown: func(context.Context) error { return nil },
	}, nil), nil, &stdout, &stderr))
	require.Contains(t, stdout.String(), `msg="mqshutdown will not find this process"`)
	require.Equal(t, "mqfake: boom\n", stderr.String())
}

// Proves that -n and the keys are settings, in either spelling and in order.
func TestFlags(t *testing.T) {
	f, _, err := parse("mqfake", []string{"rocketmqHome", "namesrvAddr"}, []string{"-n", "a:1", "--rocketmqHome=/x", "--rocketmq-home=/y"})
	require.NoError(t, err)
	var got []string
	for _, s := range f.Settings {
		got = append(got, s.Key+"="+s.Value+" "+string(s.From))
	}
	require.Equal(t, []string{"namesrvAddr=a:1 flag --namesrv-addr", "rocketmqHome=/x flag --rocketmq-home", "rocketmqHome=/y flag --rocketmq-home"}, got)
}
