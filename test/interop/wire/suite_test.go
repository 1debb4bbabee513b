//go:build interop

package wire

import (
	"os"
	"testing"
)

// short says that only the part is asked for that CI runs: what proves the suite, and what is seen
// elsewhere too, is left out.
func short() bool { return os.Getenv("RMQ_INTEROP_SHORT") != "" }

// TestApacheAlone proves the suite itself: it passes against the servers of Apache.
func TestApacheAlone(t *testing.T) {
	if short() {
		t.Skip("left out of the short form: it proves the suite, not our programs")
	}
	ns := apacheNamesrv(t)
	b := apacheBroker(t, ns.addr, t.TempDir())
	awaitRoute(t, client54, ns.addr, b.addr)
	suite(t, client54, ns.addr)
}

// TestJavaClients proves that unmodified clients of both release lines do everything against our
// NameServer and broker.
func TestJavaClients(t *testing.T) {
	for _, l := range []line{client49, client54} {
		t.Run(string(l), func(t *testing.T) {
			ns := ourNamesrv(t)
			ourBroker(t, ns.addr, t.TempDir())
			var only []string
			if l == client49 && short() {
				only = []string{"sync", "batch", "queries", "concurrently", "orderly", "retriesThenDeadLetter", "litePull"}
			}
			suite(t, l, ns.addr, only...)
		})
	}
}

// TestCrossed proves that each side's broker lives under the other side's NameServer.
func TestCrossed(t *testing.T) {
	t.Run("apache broker under our namesrv", func(t *testing.T) {
		ns := ourNamesrv(t)
		b := apacheBroker(t, ns.addr, t.TempDir())
		awaitRoute(t, client54, ns.addr, b.addr)
		suite(t, client54, ns.addr, "sync", "concurrently", "queries")
	})
	if short() {
		return
	}
	t.Run("our broker under the namesrv of apache", func(t *testing.T) {
		ns := apacheNamesrv(t)
		b := ourBroker(t, ns.addr, t.TempDir())
		awaitRoute(t, client54, ns.addr, b.addr)
		suite(t, client54, ns.addr, "sync", "concurrently", "queries")
	})
}
