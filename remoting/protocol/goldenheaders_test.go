package protocol

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// headerClasses says which structs stand for which classes of the Java client, by their simple names.
var headerClasses = map[string]any{
	"RegisterBrokerRequestHeader":               RegisterBrokerHeader{},
	"RegisterBrokerResponseHeader":              RegisterBrokerResponse{},
	"UnRegisterBrokerRequestHeader":             UnregisterBrokerHeader{},
	"QueryDataVersionRequestHeader":             QueryDataVersionHeader{},
	"QueryDataVersionResponseHeader":            QueryDataVersionResponse{},
	"BrokerHeartbeatRequestHeader":              BrokerHeartbeatHeader{},
	"GetBrokerMemberGroupRequestHeader":         GetBrokerMemberGroupHeader{},
	"NotifyMinBrokerIdChangeRequestHeader":      NotifyMinBrokerIDChangeHeader{},
	"GetRouteInfoRequestHeader":                 GetRouteInfoHeader{},
	"PutKVConfigRequestHeader":                  PutKVConfigHeader{},
	"GetKVConfigRequestHeader":                  KVConfigHeader{},
	"DeleteKVConfigRequestHeader":               KVConfigHeader{},
	"GetKVConfigResponseHeader":                 GetKVConfigResponse{},
	"GetKVListByNamespaceRequestHeader":         GetKVListHeader{},
	"WipeWritePermOfBrokerRequestHeader":        WritePermHeader{},
	"AddWritePermOfBrokerRequestHeader":         WritePermHeader{},
	"WipeWritePermOfBrokerResponseHeader":       WipeWritePermResponse{},
	"AddWritePermOfBrokerResponseHeader":        AddWritePermResponse{},
	"DeleteTopicFromNamesrvRequestHeader":       DeleteTopicInNameServerHeader{},
	"DeleteTopicRequestHeader":                  TopicHeader{},
	"GetTopicStatsInfoRequestHeader":            TopicHeader{},
	"QueryTopicConsumeByWhoRequestHeader":       TopicHeader{},
	"RegisterTopicRequestHeader":                TopicHeader{},
	"GetTopicsByClusterRequestHeader":           GetTopicsByClusterHeader{},
	"ConsumerSendMsgBackRequestHeader":          SendBackHeader{},
	"ReplyMessageRequestHeader":                 PushReplyHeader{},
	"QueryConsumerOffsetRequestHeader":          QueryOffsetHeader{},
	"QueryConsumerOffsetResponseHeader":         OffsetResponse{},
	"GetMaxOffsetResponseHeader":                OffsetResponse{},
	"GetMinOffsetResponseHeader":                OffsetResponse{},
	"SearchOffsetResponseHeader":                OffsetResponse{},
	"UpdateConsumerOffsetRequestHeader":         UpdateOffsetHeader{},
	"GetMaxOffsetRequestHeader":                 QueueHeader{},
	"GetMinOffsetRequestHeader":                 QueueHeader{},
	"GetEarliestMsgStoretimeRequestHeader":      QueueHeader{},
	"GetEarliestMsgStoretimeResponseHeader":     EarliestStoreTimeResponse{},
	"SearchOffsetRequestHeader":                 SearchOffsetHeader{},
	"CloneGroupOffsetRequestHeader":             CloneGroupOffsetHeader{},
	"QueryCorrectionOffsetHeader":               QueryCorrectionOffsetHeader{},
	"UnregisterClientRequestHeader":             UnregisterClientHeader{},
	"GetConsumerListByGroupRequestHeader":       ConsumerGroupHeader{},
	"NotifyConsumerIdsChangedRequestHeader":     ConsumerGroupHeader{},
	"GetConsumerConnectionListRequestHeader":    ConsumerGroupHeader{},
	"GetProducerConnectionListRequestHeader":    ProducerGroupHeader{},
	"CreateTopicRequestHeader":                  CreateTopicHeader{},
	"GetTopicConfigRequestHeader":               GetTopicConfigHeader{},
	"QueryConsumeTimeSpanRequestHeader":         QueryConsumeTimeSpanHeader{},
	"QuerySubscriptionByConsumerRequestHeader":  QuerySubscriptionHeader{},
	"GetConsumerStatusRequestHeader":            GetConsumerStatusHeader{},
	"QueryConsumeQueueRequestHeader":            QueryConsumeQueueHeader{},
	"GetSubscriptionGroupConfigRequestHeader":   GroupHeader{},
	"QueryTopicsByConsumerRequestHeader":        GroupHeader{},
	"DeleteSubscriptionGroupRequestHeader":      DeleteSubscriptionGroupHeader{},
	"UpdateGroupForbiddenRequestHeader":         GroupForbiddenHeader{},
	"GetConsumeStatsRequestHeader":              GetConsumeStatsHeader{},
	"GetConsumeStatsInBrokerHeader":             GetBrokerConsumeStatsHeader{},
	"GetConsumerRunningInfoRequestHeader":       GetConsumerRunningInfoHeader{},
	"ConsumeMessageDirectlyResultRequestHeader": ConsumeMessageDirectlyHeader{},
	"ResetOffsetRequestHeader":                  ResetOffsetHeader{},
	"QueryMessageRequestHeader":                 QueryMessageHeader{},
	"QueryMessageResponseHeader":                QueryMessageResponse{},
	"ViewMessageRequestHeader":                  ViewMessageHeader{},
	"GetBrokerConfigResponseHeader":             GetBrokerConfigResponse{},
	"ViewBrokerStatsDataRequestHeader":          ViewBrokerStatsHeader{},
	"EndTransactionRequestHeader":               EndTransactionHeader{},
	"CheckTransactionStateRequestHeader":        CheckTransactionStateHeader{},
	"ResumeCheckHalfMessageRequestHeader":       ResumeCheckHalfMessageHeader{},
	"ExchangeHAInfoRequestHeader":               ExchangeHAInfoHeader{},
	"ResetMasterFlushOffsetHeader":              ResetMasterFlushOffsetHeader{},
}

// Members that every 5.x request may carry, and that mean nothing to a broker without static topics and proxies.
var anywhere = []string{"bname", "ns", "nsd", "oway", "lo"}

// outside are fields that senders add past the header class.
var outside = []string{"_UNIQUE_KEY_QUERY", "__ZONE_NAME", "__ZONE_MODE"}

// stricter are fields that we ask for and Java does not: its handlers fail without them.
var stricter = map[string]bool{"QueryConsumeQueueRequestHeader": true, "QuerySubscriptionByConsumerRequestHeader": true}

// Proves that header structs have the names and types of the Java classes: no field is missing, none is made up, and none is
// asked for that Java may leave out.
func TestGoldenHeaderFields(t *testing.T) {
	type javaField struct {
		kind     string
		required bool
	}
	java := map[string]map[string]javaField{} // class, field: of both releases together
	for _, client := range clients {
		var classes map[string][]string
		require.NoError(t, json.Unmarshal([]byte(samples(t, client)["headers"].Body), &classes))
		for class, fields := range classes {
			if java[class] == nil {
				java[class] = map[string]javaField{}
			}
			for _, f := range fields {
				parts := strings.Fields(f)
				java[class][parts[0]] = javaField{parts[1], len(parts) == 3}
			}
		}
	}
	kinds := map[string]string{"string": "string", "int": "int32", "integer": "int32", "long": "int64", "boolean": "bool", "boundarytype": "string"}
	for class, header := range headerClasses {
		fields, ok := java[class]
		require.True(t, ok, class)
		ours := map[string]bool{}
		typ := reflect.TypeOf(header)
		for _, f := range extPlan(typ) {
			ours[f.name] = true
			j, ok := fields[f.name]
			if !ok {
				shared := typ == reflect.TypeFor[QueueHeader]() && f.name == "committed"
				require.True(t, shared || slices.Contains(outside, f.name), "%s has no %s", class, f.name)
				continue
			}
			want := kinds[j.kind]
			require.Equal(t, want, baseKind(typ.FieldByIndex(f.index).Type).String(), "%s.%s", class, f.name)
			require.False(t, f.required && !j.required && !stricter[class], "%s.%s may be left out", class, f.name)
		}
		for name := range fields {
			require.True(t, ours[name] || slices.Contains(anywhere, name), "%s.%s is missing in %s", class, name, typ)
		}
	}
	// The hot headers have no tags; their field names are in the samples of TestGoldenSend and TestGoldenPull.
	for _, f := range pullRequired {
		require.True(t, java["PullMessageRequestHeader"][f.name].required, f.name)
	}
	for i, name := range sendNames {
		require.Equal(t, i < 8, java["SendMessageRequestHeader"][name].required, name)
	}
}
