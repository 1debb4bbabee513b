package protocol

import "strconv"

// Version is the version that every command of ours carries: V5_3_3, whose requests it speaks. Java
// clients refuse SQL92 subscriptions at a broker whose heartbeat answers carry less than 232.
const Version = 479

// Versions that change what is sent or accepted, and where the tables of names begin.
const (
	VersionFilterServers = 37  // below it a broker registers with the bare topic table
	VersionRelay         = 62  // below it a consumer cannot tell its running info
	VersionResetOffset   = 28  // below it a consumer cannot be told to reset offsets
	VersionStandardJSON  = 401 // from it on a route has quoted integer keys
	VersionMappings      = 413 // from it on a compressed registration has static-topic mappings
	versionHigher        = 612
)

// VersionName is the name of a version number (MQVersion.getVersionDesc), as brokerVersionDesc and
// the tools show it: "V5_3_3".
func VersionName(v int32) string {
	switch {
	case v < 0 || v >= versionHigher:
		return "HIGHER_VERSION"
	case int(v) < len(versionsBefore301):
		return "V3_0_0_" + versionsBefore301[v]
	}
	left := v - int32(len(versionsBefore301))
	for _, m := range versionMinors {
		if n := 2 * (m.last - m.first + 1); left >= n {
			left -= n
			continue
		}
		name := "V" + m.minor + "_" + strconv.Itoa(int(m.first+left/2))
		if left%2 == 0 {
			name += "_SNAPSHOT"
		}
		return name
	}
	// From 4.0.0 on there are ten patches in each of ten minors.
	name := "V" + strconv.Itoa(int(4+left/200)) + "_" + strconv.Itoa(int(left%200/20)) + "_" + strconv.Itoa(int(left%20/2))
	if left%2 == 0 {
		name += "_SNAPSHOT"
	}
	return name
}

var versionsBefore301 = [...]string{"SNAPSHOT", "ALPHA1", "BETA1", "BETA2", "BETA3", "BETA4", "BETA5", "BETA6_SNAPSHOT", "BETA6",
	"BETA7_SNAPSHOT", "BETA7", "BETA8_SNAPSHOT", "BETA8", "BETA9_SNAPSHOT", "BETA9", "FINAL"}

// versionMinors are the patches, first to last, of the minors of version 3; each has a snapshot in front.
var versionMinors = [...]struct {
	minor       string
	first, last int32
}{{"3_0", 1, 15}, {"3_1", 0, 9}, {"3_2", 0, 9}, {"3_3", 1, 9}, {"3_4", 1, 9}, {"3_5", 1, 9}, {"3_6", 1, 9}, {"3_7", 1, 9}, {"3_8", 1, 9}, {"3_9", 1, 9}}
