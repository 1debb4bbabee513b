package broker

import (
	"fmt"
	"slices"
	"strings"

	"rmq/message"
)

// Topics and groups that a broker has of its own (org.apache.rocketmq.common.topic.TopicValidator,
// org.apache.rocketmq.common.MixAll).
const (
	topicAutoCreate   = "TBW102" // the template of auto-created topics
	topicSelfTest     = "SELF_TEST_TOPIC"
	topicBenchmark    = "BenchmarkTest"
	topicOffsetMoved  = "OFFSET_MOVED_EVENT"
	topicTransHalf    = "RMQ_SYS_TRANS_HALF_TOPIC"
	topicTransOp      = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
	topicTransMaxTime = "TRANS_CHECK_MAX_TIME_TOPIC"
	topicTrace        = "RMQ_SYS_TRACE_TOPIC"
	topicCheckpoint   = "CHECKPOINT_TOPIC"
	topicWheelTimer   = "rmq_sys_wheel_timer"

	systemTopicPrefix = "rmq_sys_"
	systemGroupPrefix = "CID_RMQ_SYS_"
	retryPrefix       = "%RETRY%"
	dlqPrefix         = "%DLQ%"

	maxTopicChars       = 127
	maxRetryOrDLQChars  = 255
	maxGroupChars       = 120
	legalNameCharacters = "letters, digits and % | - _"
)

// The bits of TopicConfig.TopicSysFlag (org.apache.rocketmq.common.sysflag.TopicSysFlag).
const (
	topicFlagUnit    = 1
	topicFlagUnitSub = 2
)

// fixedSystemTopics have the same name in every broker.
var fixedSystemTopics = []string{
	topicAutoCreate, message.TopicSchedule, topicBenchmark, topicTransHalf, topicTransOp, topicTrace, topicTransMaxTime,
	topicSelfTest, topicOffsetMoved, topicCheckpoint,
}

// sendForbiddenTopics take no messages from clients.
var sendForbiddenTopics = []string{
	message.TopicSchedule, topicTransHalf, topicTransOp, topicTransMaxTime, topicSelfTest, topicOffsetMoved,
}

// systemGroups are there from the start, with the defaults of every group.
var systemGroups = []string{
	"TOOLS_CONSUMER", "FILTERSRV_CONSUMER", "SELF_TEST_C_GROUP", "CID_ONS-HTTP-PROXY",
	"CID_ONSAPI_PULL", "CID_ONSAPI_PERMISSION", "CID_ONSAPI_OWNER", "CID_RMQ_SYS_TRANS",
}

// isSystemGroup says whether a group is created whatever autoCreateSubscriptionGroup says.
func isSystemGroup(group string) bool {
	return strings.HasPrefix(group, systemGroupPrefix) || slices.Contains(systemGroups, group)
}

func isRetryTopic(topic string) bool { return strings.HasPrefix(topic, retryPrefix) }

func isDLQTopic(topic string) bool { return strings.HasPrefix(topic, dlqPrefix) }

// canSendTo says whether clients may send to a topic.
func canSendTo(topic string) bool { return !slices.Contains(sendForbiddenTopics, topic) }

func legalName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '%', c == '|', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// remark is an error whose text a client is shown, in the words of Apache where tools know them.
type remark string

func (r remark) Error() string { return string(r) }

func remarkf(format string, args ...any) error { return remark(fmt.Sprintf(format, args...)) }

// validateTopic checks the name of a topic. The error is the remark for the client.
func validateTopic(topic string) error {
	limit := maxTopicChars
	if isRetryTopic(topic) || isDLQTopic(topic) {
		limit = maxRetryOrDLQChars
	}
	switch {
	case strings.TrimSpace(topic) == "":
		return remark("The specified topic is blank.")
	case !legalName(topic):
		return remarkf("The specified topic contains illegal characters, allowing only ^[%%|a-zA-Z0-9_-]+$: use %s", legalNameCharacters)
	case len(topic) > limit:
		return remarkf("The specified topic is longer than topic max length: %d of at most %d characters", len(topic), limit)
	}
	return nil
}

// validateGroup checks the name of a consumer group. The error is the remark for the client.
func validateGroup(group string) error {
	switch {
	case strings.TrimSpace(group) == "":
		return remark("The specified group is blank.")
	case !legalName(group):
		return remarkf("The specified group contains illegal characters, allowing only ^[%%|a-zA-Z0-9_-]+$: use %s", legalNameCharacters)
	case len(group) > maxGroupChars:
		return remarkf("The specified group is longer than group max length: %d of at most %d characters", len(group), maxGroupChars)
	}
	return nil
}
