package wire_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rmq/bench/driver/wire"
	"rmq/client"
	"rmq/internal/run"
)

// BenchmarkHeldPulls is what the leader of a group spends on 2,000 clients with a connection each, to which nothing comes:
// CPU of its process in percent of a core, and its reads and writes, while they watch that it leads and while they do not.
func BenchmarkHeldPulls(b *testing.B) {
	const clients, watched = 2000, 10 * time.Second
	cl, err := wire.Start(b.Context(), wire.Driver{BinDir: programs}, b.TempDir(), wire.Spec{Flush: "async", Write: "pwrite", Repl: "raft"})
	require.NoError(b, err)
	defer func() { require.NoError(b, cl.Stop()) }()
	leader, err := cl.Leader(b.Context())
	require.NoError(b, err)
	net := newClient(b)
	defer func() { require.NoError(b, net.Close()) }()
	resp, err := net.Call(b.Context(), leader.Addr, sendRequest("held", []byte("one")))
	require.NoError(b, err)
	require.NoError(b, resp.Err())
	for _, probe := range []time.Duration{0, -1} {
		name := "watched"
		if probe < 0 {
			name = "unwatched"
		}
		b.Run(name, func(b *testing.B) {
			g := run.New(b.Context(), "held")
			var cs []*client.Client
			for range clients {
				c, err := client.New(client.Options{
					NameServers: cl.NameServer, LeaderProbe: probe, RouteInterval: time.Hour,
				})
				require.NoError(b, err)
				cs = append(cs, c)
				g.Go("pull", func(ctx context.Context) error {
					q := client.MessageQueue{Topic: "held", BrokerName: "broker-a", QueueID: 0}
					for ctx.Err() == nil {
						if _, err := c.Pull(ctx, q, 1, 1, client.Expression{}, time.Minute); err != nil && ctx.Err() == nil {
							return err
						}
					}
					return nil
				})
			}
			time.Sleep(5 * time.Second) // connected, and held
			used := func() (cpuNS, calls int64) {
				c := wire.Process(leader.PID())
				require.NotNil(b, c.CPUNanos)
				require.NotNil(b, c.Syscalls)
				return *c.CPUNanos, *c.Syscalls
			}
			for b.Loop() {
				cpu, calls := used()
				time.Sleep(watched)
				cpuAfter, callsAfter := used()
				b.ReportMetric(float64(cpuAfter-cpu)/float64(watched)*100, "%core")
				b.ReportMetric(float64(callsAfter-calls)/watched.Seconds(), "calls/s")
			}
			g.Cancel()
			require.NoError(b, g.Wait())
			var errs []error
			for _, c := range cs {
				errs = append(errs, c.Close(context.Background()))
			}
			require.NoError(b, errors.Join(errs...))
		})
	}
}
