//go:build interop

package wire

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReplicaAdmin proves that operators see a master and its slave with the stock tools and with ours, on our brokers
// as on Apache's: the same columns, and who is who.
func TestReplicaAdmin(t *testing.T) {
	for _, kind := range []line{rmq, server54} {
		if short() && kind != rmq {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			p := newPair(t, kind, kind, client54)
			p.begin(t)
			p.write(t, "one", 5)
			sameLog(t, p.c, p.a, p.b)
			_, end := p.a.span(t, p.c)
			rows := []struct {
				args string
				rows []string // patterns of rows, one blank for many
			}{
				{"clusterList", []string{`^DefaultCluster broker-a 0 ` + p.a.addr() + ` V\S+ .* true$`, `^DefaultCluster broker-a 1 ` + p.b.addr() + ` V\S+ .* false$`}},
				{"haStatus -b " + p.a.addr(), []string{`^#MasterAddr ` + p.a.addr() + `$`, `^#MasterCommitLogMaxOffset ` + strconv.FormatInt(end, 10) + `$`,
					`^#SlaveNum 1$`, `^#InSyncSlaveNum 1$`, fmt.Sprintf(`^127\.0\.0\.1:\d+ %d 0 [\d.]+ OK %d$`, end, end)}},
				{"haStatus -b " + p.b.addr(), []string{`^#MasterAddr ` + p.a.haAddr() + `$`, `^#CommitLogMaxOffset ` + strconv.FormatInt(end, 10) + `$`}},
				{"getBrokerConfig -c DefaultCluster", []string{`^=+Master: ` + p.a.addr() + `=+$`, `^=+My Master: ` + p.a.addr() + `=+Slave: ` + p.b.addr() + `=+$`,
					`^brokerRole = ASYNC_MASTER$`, `^brokerRole = SLAVE$`, `^brokerId = 1$`}},
			}
			var commands [][]string
			for _, r := range rows {
				commands = append(commands, strings.Fields(r.args))
			}
			stock := client54.stockAdmin(t, p.ns, commands)
			for i, r := range rows {
				own, err := ourAdmin(t, p.ns, commands[i]...)
				require.NoError(t, err)
				if r.args != "haStatus -b "+p.b.addr() { // a slave of ours does not count when it has read and written last
					require.Equal(t, titles(stock[i]), titles(own), "%s\n%s", stock[i], own)
				}
				for _, out := range []string{stock[i], own} {
					flat := regexp.MustCompile(`[ \t]+`).ReplaceAllString(out, " ")
					flat = regexp.MustCompile(`(?m)^ | $`).ReplaceAllString(flat, "")
					for _, row := range r.rows {
						require.Regexp(t, `(?m)`+row, flat, "%s\n%s", r.args, out)
					}
				}
			}
			old := client49.stockAdmin(t, p.ns, [][]string{{"clusterList"}, {"getBrokerConfig", "-c", "DefaultCluster"}})
			require.Regexp(t, `broker-a +1 +`+p.b.addr(), old[0])
			require.Contains(t, old[1], "Slave: "+p.b.addr())
		})
	}
}
