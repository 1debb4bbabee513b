package protocol

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	h := SendHeader{ProducerGroup: []byte("g"), Topic: []byte("t"), DefaultTopic: []byte("TBW102"), DefaultTopicQueueNums: 4, QueueID: 3, BornMillis: 99, Properties: []byte("a\x01b\x02")}
	for _, s := range []Serialize{JSON, Binary} {
		f := AppendSendRequest(nil, RequestSendMessageV2, 7, 0, s, &h, 2)
		f = append(f, "hi"...)
		_ = fmt.Sprint(string(f))
		n, err := FrameBytes(f)
		require.NoError(t, err)
		require.Equal(t, len(f), n)
		var c Command
		require.NoError(t, ParseCommand(f[4:], &c))
		var g SendHeader
		require.NoError(t, ParseSendHeader(&c, &g))
		require.Equal(t, h, g)
		require.Equal(t, f, AppendCommand(nil, &c))
	}
	b, _ := hex.DecodeString("00000025" + "01000021" + "006909013D000000010000000000000000" + "0000000C0005746F7069630000000154")
	var c Command
	require.NoError(t, ParseCommand(b[4:], &c))
	require.Equal(t, "T", c.GetString("topic"))
	require.Equal(t, b, AppendCommand(nil, &c))
	_ = fmt.Sprint(string(EncodeBody(TopicStatsTable{OffsetTable: map[MessageQueue]TopicOffset{{"T", "b", 1}: {1, 2, 3}}})))
	var st TopicStatsTable
	require.NoError(t, DecodeBody([]byte(`{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T"}:{"maxOffset":"7"}} } `), &st))
	_ = fmt.Sprint(st)
	_ = fmt.Sprint(string(EncodeBody(NewSubscriptionGroupConfig("g"))), VersionName(479), VersionName(317), VersionName(409))
}
