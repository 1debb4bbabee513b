package daemon

import (
	"net"
	"strings"

	"rmq/internal/config"
)

// Config has the keys that every daemon knows. Embed it in the daemon's own Config, begin with
// [DefaultConfig] and call [Config.Review].
type Config struct {
	LogFile     string      `prop:"logFile"` // "": standard output
	LogLevel    string      `prop:"logLevel,live,oneof=DEBUG|INFO|WARN|ERROR"`
	LogFormat   string      `prop:"logFormat,oneof=text|json"`
	LogMaxSize  config.Size `prop:"logMaxSize,min=4096"`      // of the file that is written; then it is put behind the others
	LogMaxFiles int         `prop:"logMaxFiles,min=1,max=99"` // of those others: logFile.1 is the newest
	HTTPPort    int         `prop:"httpPort,max=65535"`       // metrics, health, profiles; 0: none
	HTTPAddress string      `prop:"httpAddress"`              // "": all addresses
}

// DefaultConfig is what holds where nobody says anything.
func DefaultConfig() Config {
	return Config{LogLevel: "INFO", LogFormat: "text", LogMaxSize: 64 << 20, LogMaxFiles: 10}
}

// Review complains about what the tags cannot say.
func (c *Config) Review(r *config.Review) {
	if !IsAddress(c.HTTPAddress) {
		r.Refuse("httpAddress", "use one address without a port")
	}
}

// IsAddress says whether a process may listen on s: an address or a host name without a port, or ""
// for all addresses.
func IsAddress(s string) bool {
	_, _, err := net.SplitHostPort(s)
	return err != nil && !strings.ContainsAny(s, " /;")
}
