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
	case v < 0:
		return "V3_0_0_SNAPSHOT"
	case v >= versionHigher:
		return "HIGHER_VERSION"
	case v >= 213:
		return fourOn(v)
	}
	return "V3_" + strconv.Itoa(int(v))
}

// fourOn names 4.0.0 (213) to 5.9.9: two numbers a patch, twenty a minor, the snapshot before its release.
func fourOn(v int32) string {
	major, n := int32(4), v-213
	if v >= 412 {
		major, n = 5, v-413
	}
	snapshot := ""
	if n%2 != 0 {
		n, snapshot = n+1, "_SNAPSHOT"
	}
	return "V" + strconv.Itoa(int(major)) + "_" + strconv.Itoa(int(n/20)) + "_" + strconv.Itoa(int(n%20/2)) + snapshot
}
