package client

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"rmq/remoting/protocol"
)

// Options say who a [Client] is and whom it talks to. The zero value works when NAMESRV_ADDR is set.
type Options struct {
	// NameServers are addresses "host:port", separated by semicolons. Host names are resolved again
	// at every dial. Default: the environment variable NAMESRV_ADDR.
	NameServers string
	// IP stands in the client id and in unique keys. Default: the address that reaches the first
	// name server, else the first of this machine that is not loopback.
	IP netip.Addr
	// Instance tells clients of one machine apart. Default: the process id and a counter. Two
	// clients with the same IP and Instance break the sharing of queues.
	Instance string
	// Unit ends the client id, for deployments in units.
	Unit string

	// Timeout bounds a request whose context has no deadline, and each question to a name server.
	// Default 3 s.
	Timeout time.Duration
	// RouteInterval is how often routes are asked for again. Default 30 s.
	RouteInterval time.Duration
	// HeartbeatInterval is how often brokers hear of the client. Default 30 s; they forget after 120 s.
	HeartbeatInterval time.Duration
	// LeaderProbe is how long a broker that owes answers to sends may say nothing until the client asks the other nodes
	// of that broker, a slave or the members of its group, whether one of them leads by now. If one does, sends go there,
	// and those without an answer are tried again as those of a broken connection are. A broker that has other nodes and
	// holds pulls is asked whether it leads when nothing has come from it for twice as long, and pulls go where the leader is.
	// Default 500 ms; negative: never.
	LeaderProbe time.Duration

	// Serialize encodes the headers of requests: JSON (the default, which everybody reads) or ROCKETMQ.
	Serialize protocol.Serialize
	// Logger gets what happens in the background. Default: nothing is logged.
	Logger *slog.Logger
}

// EnsureDefaults fills what is unset.
func (o *Options) EnsureDefaults() {
	if o.NameServers == "" {
		o.NameServers = os.Getenv("NAMESRV_ADDR")
	}
	setDefault(&o.Timeout, 3*time.Second)
	setDefault(&o.RouteInterval, 30*time.Second)
	setDefault(&o.HeartbeatInterval, 30*time.Second)
	setDefault(&o.LeaderProbe, 500*time.Millisecond)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every complaint at once.
func (o *Options) Validate() error {
	var errs []error
	servers := splitServers(o.NameServers)
	if len(servers) == 0 {
		errs = append(errs, ErrNoNameServer)
	}
	for _, s := range servers {
		if err := checkAddr(s); err != nil {
			errs = append(errs, fmt.Errorf("NameServers: %w", err))
		}
	}
	errs = append(errs, notNegative("Timeout", o.Timeout), notNegative("RouteInterval", o.RouteInterval), notNegative("HeartbeatInterval", o.HeartbeatInterval))
	return errors.Join(errs...)
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func notNegative[T int | int32 | int64 | time.Duration](name string, v T) error {
	if v < 0 {
		return fmt.Errorf("%s is %v: give 0 for the default or a positive value", name, v)
	}
	return nil
}

// splitServers takes a list apart at semicolons. Old habits: http:// in front, commas, blanks.
func splitServers(list string) []string {
	var out []string
	for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ';' || r == ',' }) {
		s = strings.TrimSpace(s)
		s = strings.TrimPrefix(s, "http://")
		if s = strings.TrimSuffix(s, "/"); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is no address: write host:port, like 127.0.0.1:9876", addr)
	}
	n, err := strconv.Atoi(port)
	if host == "" || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is no address: write host:port, like 127.0.0.1:9876", addr)
	}
	return nil
}

// localIP is the address under which the machine reaches server, or any that it has.
func localIP(servers []string) netip.Addr {
	for _, s := range servers {
		// A datagram socket learns its own address from the route; nothing is sent.
		c, err := net.Dial("udp", s) //nolint:noctx // a numeric address takes no time, and a name is looked up once
		if err != nil {
			continue
		}
		a, ok := c.LocalAddr().(*net.UDPAddr)
		_ = c.Close() // nothing was written
		if ok {
			return a.AddrPort().Addr().Unmap()
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					return ip.Unmap()
				}
			}
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
