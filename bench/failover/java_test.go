package failover

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proves that a client in a process of its own answers every message once: as its process says, and with an error what
// that leaves open when it ends.
func TestExternal(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "client.sh")
	require.NoError(t, os.WriteFile(script, []byte(`echo READY
echo "for $1"
while read -r id topic body; do
	case $topic in
	good) echo "$id OK" ;;
	bad) echo "$id ERR no such topic" ;;
	late) echo "$id ERR FLUSH_DISK_TIMEOUT" ;;
	end) exit 0 ;;
	esac
done
`), 0o644))
	x, err := newExternal(t.Context(), "sh "+script, "127.0.0.1:9876", dir, 8)
	require.NoError(t, err)
	answers := make(chan error, 8)
	done := func(err error) { answers <- err }
	x.Send("good", 0, []byte("a"), done)
	require.NoError(t, <-answers)
	x.Send("bad", 0, []byte("b"), done)
	require.EqualError(t, <-answers, "no such topic")
	x.Send("late", 0, []byte("b"), done)
	require.ErrorIs(t, <-answers, errStatus)
	x.Send("silent", 0, []byte("c"), done)
	x.Send("end", 0, []byte("d"), done)
	for range 2 {
		require.ErrorContains(t, <-answers, "has ended; see")
	}
	x.Send("good", 0, []byte("e"), done)
	require.Error(t, <-answers)
	require.NoError(t, x.Close())
	text, err := os.ReadFile(filepath.Join(dir, clientJava+".log"))
	require.NoError(t, err)
	require.Equal(t, "for 127.0.0.1:9876\n", string(text))
	_, err = newExternal(t.Context(), "sh "+filepath.Join(dir, "none"), "127.0.0.1:9876", dir, 8)
	require.ErrorContains(t, err, "ended before it was ready")
	_, err = newExternal(t.Context(), filepath.Join(dir, "none"), "127.0.0.1:9876", dir, 8)
	require.ErrorIs(t, err, os.ErrNotExist)
}
