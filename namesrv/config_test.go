package namesrv

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"rmq/internal/config"
)

func load(text string) (*Settings, []config.Notice, error) {
	return LoadConfig(LoadOptions{File: "n.conf", Text: []byte(text), Strict: true, Getenv: func(name string) string {
		return map[string]string{"HOME": "/h", "ROCKETMQ_HOME": "/opt/rmq"}[name]
	}})
}

// Proves what holds where only the environment says anything.
func TestConfigDefaults(t *testing.T) {
	s, notices, err := load("")
	require.NoError(t, err)
	require.Empty(t, notices)
	want := DefaultConfig("/h")
	want.RocketmqHome = "/opt/rmq"
	if d := cmp.Diff(want, *s.Get()); d != "" {
		t.Error(d)
	}
	require.Equal(t, "/h/namesrv/kvConfig.json", s.Get().KVConfigPath)
	require.Equal(t, config.Origin("environment ROCKETMQ_HOME"), s.Origin("rocketmqHome"))

	t.Setenv("HOME", "/h2")
	s, _, err = LoadConfig(LoadOptions{})
	require.NoError(t, err)
	require.Equal(t, "/h2/namesrv/namesrv.properties", s.Get().ConfigStorePath)
}

// Proves that the guides' file loads, and that what is printed of it gives the same configuration.
func TestGuideFile(t *testing.T) {
	text, err := os.ReadFile("testdata/namesrv.properties")
	require.NoError(t, err)
	s, notices, err := load(string(text))
	require.NoError(t, err)
	var said []string
	for _, n := range notices {
		said = append(said, n.String())
	}
	require.Equal(t, []string{
		"n.conf:6: clusterTest: has no effect here: there is no product environment to ask",
		"n.conf:7: productEnvName: has no effect here: there is no product environment to ask",
		"n.conf:9: serverWorkerThreads: has no effect here: connections are served by goroutines",
	}, said)
	want := DefaultConfig("/data")
	want.RocketmqHome = "/opt/rocketmq"
	require.Equal(t, want, *s.Get())

	printed := s.Append(nil, false)
	require.Len(t, KeyNames(), strings.Count(string(printed), "\n")/2)
	again, notices, err := load(string(printed))
	require.NoError(t, err)
	require.Empty(t, notices)
	require.Equal(t, *s.Get(), *again.Get())
	require.Contains(t, string(s.Append(nil, true)), "# n.conf:2\nlistenPort=9876\n")
}

// Proves each text of an error, once.
func TestConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		"listenPort=0":                   "listenPort is 0: use a whole number from 1 to 65535",
		"bindAddress=127.0.0.1:9876":     "bindAddress is 127.0.0.1:9876: use one address without a port",
		"httpPort=9876":                  "httpPort is 9876: listenPort is the same: use another one, or 0 for none",
		"httpAddress=a b":                "httpAddress is a b: use one address without a port",
		"kvConfigPath=":                  "kvConfigPath is empty: name a file",
		"configStorePath=":               "configStorePath is empty: name a file",
		"enableControllerInNamesrv=true": "enableControllerInNamesrv is true: this version has no controller mode: use false",
		"namesrvAddr=a:1":                "namesrvAddr: unknown key",
		"listenport=1":                   "listenport: unknown key, did you mean listenPort?",
	} {
		_, _, err := load(text)
		require.EqualError(t, err, "n.conf:1: "+want)
	}
	_, _, err := load(`a=\u`)
	require.ErrorContains(t, err, "read n.conf: line 1: ")
}

// Proves what can be changed at run time, and what cannot.
func TestConfigUpdate(t *testing.T) {
	s, _, err := load("configBlackList=enableTopicList")
	require.NoError(t, err)
	set := func(key, value string) []config.Setting {
		return []config.Setting{{Key: key, Value: value, From: "update"}}
	}
	next, changes, _, err := s.Update(set("orderMessageEnable", "true"))
	require.NoError(t, err)
	require.True(t, next.Get().OrderMessages)
	require.Equal(t, []config.Change{{Key: "orderMessageEnable", Old: "false", New: "true"}}, changes)
	for key, kind := range map[string]error{
		"enableTopicList": config.ErrDenied, "kvConfigPath": config.ErrDenied, "configStorePath": config.ErrDenied, "rocketmqHome": config.ErrDenied,
		"scanNotActiveBrokerInterval": config.ErrNotLive, "clusterTest": config.ErrNotLive, "nothing": config.ErrUnknownKey,
	} {
		_, _, _, err := s.Update(set(key, "4"))
		require.ErrorIs(t, err, kind, key)
	}
	require.Equal(t, 5*time.Second, s.Get().ScanInterval)
}
