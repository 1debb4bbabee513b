//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/remoting/protocol"
)

// javaClient runs the program in frames/ over lines, with the classes of one release of the client.
func javaClient(t *testing.T, line, verb string, lines []string) []string {
	dir := filepath.Join("frames", "target", line)
	libs, err := os.ReadFile(filepath.Join(dir, "classpath"))
	require.NoError(t, err, "run make interop-frames, which builds the classes")
	cmd := exec.CommandContext(t.Context(), "java", "-cp", filepath.Join(dir, "classes")+":"+strings.TrimSpace(string(libs)), "frames.Main", verb)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var diagnosis bytes.Buffer
	cmd.Stderr = &diagnosis
	out, err := cmd.Output()
	require.NoError(t, err, diagnosis.String())
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	require.Len(t, answers, len(lines))
	return answers
}

var frameLines = map[string]string{"frames49": "4.9.8", "frames53": "5.3.3"}

// ourFrames are commands that a broker of ours sends, in both encodings.
func ourFrames() [][]byte {
	var frames [][]byte
	for _, s := range []protocol.Serialize{protocol.JSON, protocol.Binary} {
		id := []byte("0A00000100002A9F0000000000001234")
		frames = append(frames,
			protocol.AppendSendResponse(nil, 7, s, protocol.ResponseSuccess, "", &protocol.SendResponse{MsgID: id, QueueID: 3, QueueOffset: 1 << 40, TransactionID: id}),
			protocol.AppendSendResponse(nil, 8, s, protocol.ResponseSystemBusy, "[REJECTREQUEST] \"flush\" \\ \x01\x1f 忙 😀", &protocol.SendResponse{}),
			append(protocol.AppendPullResponse(nil, 9, s, protocol.ResponseSuccess, "FOUND", &protocol.PullResponse{NextBeginOffset: 5, MaxOffset: 9}, 3), 0, 1, 0xff),
			protocol.AppendPullRequest(nil, protocol.RequestPullMessage, 10, s, &protocol.PullHeader{ConsumerGroup: []byte("G"), Topic: []byte("%RETRY%G"), Subscription: []byte("a || \"b\"")}),
			append(protocol.AppendSendRequest(nil, protocol.RequestSendMessageV2, 11, 2, s, &protocol.SendHeader{Topic: []byte("T"), Properties: []byte("K\x01v\x02订\x01单\x02")}, 1), 'x'))
		c := protocol.NewRequest(protocol.RequestNotifyConsumerIDsChanged)
		c.Serialize, c.Opaque = s, -1
		c.MarkOneway()
		protocol.EncodeExt(c, protocol.ConsumerGroupHeader{ConsumerGroup: "组"})
		frames = append(frames, protocol.AppendCommand(nil, c))
	}
	return frames
}

// TestFramesDecoded proves that RemotingCommand reads in our frames what we wrote.
func TestFramesDecoded(t *testing.T) {
	var lines []string
	for _, f := range ourFrames() {
		lines = append(lines, hex.EncodeToString(f[4:]))
	}
	for line := range frameLines {
		for i, answer := range javaClient(t, line, "decode", lines) {
			var got struct {
				Code, Version, Opaque, Flag int32
				Language                    string
				Remark, Body                *string
				Ext                         map[string]string
			}
			require.NoError(t, json.Unmarshal([]byte(answer), &got), answer)
			var c protocol.Command
			require.NoError(t, protocol.ParseCommand(ourFrames()[i][4:], &c))
			require.Equal(t, []int32{c.Code, c.Version, c.Opaque, c.Flag}, []int32{got.Code, got.Version, got.Opaque, got.Flag})
			require.Equal(t, "GO", got.Language)
			ext := map[string]string{}
			for _, f := range c.Ext {
				if c.Serialize == protocol.JSON || len(f.Value) > 0 { // Java reads an empty value as null in the binary form
					ext[string(f.Key)] = string(f.Value)
				}
			}
			for k, v := range got.Ext {
				if v == "" && c.Serialize == protocol.Binary {
					delete(got.Ext, k)
				}
			}
			require.Equal(t, ext, got.Ext)
			text := func(s *string) string {
				if s == nil {
					return ""
				}
				return *s
			}
			require.Equal(t, string(c.Remark), text(got.Remark))
			require.Equal(t, hex.EncodeToString(c.Body), text(got.Body))
		}
	}
}

// TestFramesBodies proves that RemotingSerializable reads our bodies whole: it writes them again as it wrote its own.
func TestFramesBodies(t *testing.T) {
	bodies := map[string]any{
		"HeartbeatData": &protocol.HeartbeatData{}, "LockBatchRequestBody": &protocol.LockBatchBody{}, "LockBatchResponseBody": &protocol.LockBatchResponseBody{},
		"ConsumerConnection": &protocol.ConsumerConnection{}, "ProducerConnection": &protocol.ProducerConnection{}, "TopicConfigWrapper": &protocol.TopicConfigWrapper{},
		"TopicRouteData": &protocol.TopicRouteData{}, "ClusterInfo": &protocol.ClusterInfo{}, "KVTable": &protocol.KVTable{}, "TopicList": &protocol.TopicList{},
		"SubscriptionGroupConfig": &protocol.SubscriptionGroupConfig{}, "TopicStatsTable": &protocol.TopicStatsTable{}, "ConsumeStats": &protocol.ConsumeStats{},
		"ConsumeStatsList": &protocol.ConsumeStatsList{}, "ResetOffsetBody": &protocol.ResetOffsetBody{}, "GetConsumerStatusBody": &protocol.ConsumerStatusBody{},
		"ConsumerOffsetSerializeWrapper": &protocol.ConsumerOffsetWrapper{}, "BrokerStatsData": &protocol.BrokerStatsData{}, "ConsumerRunningInfo": &protocol.ConsumerRunningInfo{},
		"ConsumeMessageDirectlyResult": &protocol.ConsumeMessageDirectlyResult{}, "QueryConsumeTimeSpanBody": &protocol.ConsumeTimeSpanBody{},
		"QueryConsumeQueueResponseBody": &protocol.QueryConsumeQueueBody{}, "GroupList": &protocol.GroupList{},
	}
	for line, version := range frameLines {
		f, err := os.Open(filepath.Join("..", "compat", "testdata", "wire", "client-"+version+".jsonl"))
		require.NoError(t, err)
		defer f.Close()
		var lines, want []string
		for s := bufio.NewScanner(f); s.Scan(); {
			var sample struct{ Name, Class, Body string }
			require.NoError(t, json.Unmarshal(s.Bytes(), &sample))
			v, ok := bodies[sample.Name]
			if !ok {
				continue
			}
			require.NoError(t, protocol.DecodeBody([]byte(sample.Body), v))
			lines = append(lines, sample.Class+"\t"+string(protocol.EncodeBody(v)))
			want = append(want, sample.Body)
		}
		require.Len(t, lines, len(bodies))
		for i, answer := range javaClient(t, line, "rewrite", lines) {
			require.Equal(t, want[i], answer, lines[i])
		}
	}
}
