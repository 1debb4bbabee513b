//go:build interop

package wire

import "testing"

// TestApacheAlone proves the suite itself: it passes against the servers of Apache.
func TestApacheAlone(t *testing.T) {
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
			suite(t, l, ns.addr)
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
	t.Run("our broker under the namesrv of apache", func(t *testing.T) {
		ns := apacheNamesrv(t)
		b := ourBroker(t, ns.addr, t.TempDir())
		awaitRoute(t, client54, ns.addr, b.addr)
		suite(t, client54, ns.addr, "sync", "concurrently", "queries")
	})
}
