package namesrv

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/vfs"
)

const kvPath = "/namesrv/kvConfig.json"

func loadKV(t *testing.T, fsys vfs.FS) *KVConfigManager {
	m, err := LoadKVConfig(fsys, kvPath, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return m
}

func writeFile(t *testing.T, fsys vfs.FS, name, text string) {
	require.NoError(t, fsys.MkdirAll("/namesrv", 0o755))
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
}

func fileText(t *testing.T, fsys vfs.FS, name string) string {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	b, err := io.ReadAll(io.NewSectionReader(f, 0, info.Size()))
	require.NoError(t, errors.Join(err, f.Close()))
	return string(b)
}

// Proves what is kept, and in which text.
func TestKVConfig(t *testing.T) {
	heap := vfs.NewHeap()
	fsys := vfs.NewFaulty(heap)
	m := loadKV(t, fsys)
	_, ok := m.Get("NS", "k")
	require.False(t, ok)
	require.Nil(t, m.Namespace("NS"))

	require.NoError(t, m.Apply([]KVChange{{Namespace: "NS", Key: "k", Value: `a<"b`}, {Namespace: OrderNamespace, Key: "T", Value: "a:4;b:4"}}))
	before := m.Namespace("NS")
	require.NoError(t, m.Apply([]KVChange{{Namespace: "NS", Key: "x", Value: ""}, {Namespace: "NS", Key: "k", Delete: true}, {Namespace: "M", Key: "k", Delete: true}}))
	require.Equal(t, map[string]string{"k": `a<"b`}, before, "what was read does not change")
	value, ok := m.Get("NS", "x")
	require.True(t, ok)
	require.Empty(t, value)
	_, ok = m.Get("NS", "k")
	require.False(t, ok)
	require.Nil(t, m.Namespace("M"))
	text := fileText(t, heap, kvPath)
	require.Equal(t, []string{
		"{", "\t\"configTable\": {", "\t\t\"NS\": {", "\t\t\t\"x\": \"\"", "\t\t},",
		"\t\t\"ORDER_TOPIC_CONFIG\": {", "\t\t\t\"T\": \"a:4;b:4\"", "\t\t}", "\t}", "}", "",
	}, strings.Split(text, "\n"))
	require.Equal(t, *m.table.Load(), *loadKV(t, heap).table.Load())

	// What changes nothing costs nothing.
	writes := fsys.Count(vfs.OpWrite)
	require.NoError(t, m.Apply([]KVChange{{Namespace: "NS", Key: "x", Value: ""}, {Namespace: "NS", Key: "k", Delete: true}}))
	require.Equal(t, writes, fsys.Count(vfs.OpWrite))

	// A change that does not reach the disk is not there.
	fsys.Add(vfs.Rule{Op: vfs.OpSync, Nth: 1, Err: syscall.EIO})
	err := m.Apply([]KVChange{{Namespace: "NS", Key: "y", Value: "1"}})
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, kvPath)
	_, ok = m.Get("NS", "y")
	require.False(t, ok)

	// The last key leaves its namespace behind, as Apache does.
	require.NoError(t, m.Apply([]KVChange{{Namespace: "NS", Key: "x", Delete: true}}))
	require.Equal(t, map[string]string{}, m.Namespace("NS"))
	require.Empty(t, heap.OpenFiles())
}

// Proves that what Apache's name server writes is read, that the .bak counts where the file is torn,
// and that nothing is started over when both are.
func TestKVConfigFiles(t *testing.T) {
	apache := "{\n\t\"configTable\":{\"ORDER_TOPIC_CONFIG\":{\"T\":\"broker-a:8\"\n\t\t}\n\t}\n}"
	heap := vfs.NewHeap()
	writeFile(t, heap, kvPath, apache)
	value, ok := loadKV(t, heap).Get(OrderNamespace, "T")
	require.True(t, ok)
	require.Equal(t, "broker-a:8", value)

	// As the one of 5.4.0 wrote it.
	writeFile(t, heap, kvPath, `{"configTable":{"NS":{"java":"a\"ü","k":"v1"},"ORDER_TOPIC_CONFIG":{"T1":"broker-a:4"}}}`)
	require.Equal(t, map[string]string{"java": `a"ü`, "k": "v1"}, loadKV(t, heap).Namespace("NS"))

	writeFile(t, heap, kvPath, apache[:40])
	writeFile(t, heap, kvPath+".bak", apache)
	m := loadKV(t, heap)
	_, ok = m.Get(OrderNamespace, "T")
	require.True(t, ok)
	require.Equal(t, apache[:40], fileText(t, heap, kvPath+".broken"))
	require.NoError(t, m.Apply([]KVChange{{Namespace: OrderNamespace, Key: "U", Value: "a:1"}}))
	require.Len(t, loadKV(t, heap).Namespace(OrderNamespace), 2)

	writeFile(t, heap, kvPath, "{}")
	require.Empty(t, loadKV(t, heap).Namespace(OrderNamespace))
	writeFile(t, heap, kvPath, "{")
	writeFile(t, heap, kvPath+".bak", "[]")
	_, err := LoadKVConfig(heap, kvPath, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, kvPath+".bak is damaged")
	require.Equal(t, "{", fileText(t, heap, kvPath))
}

// Proves that each acknowledged change survives a power cut.
func TestKVConfigPowerCut(t *testing.T) {
	heap := vfs.NewHeap()
	m := loadKV(t, heap)
	for _, key := range []string{"a", "b", "c"} {
		require.NoError(t, m.Apply([]KVChange{{Namespace: "NS", Key: key, Value: "1"}}))
		for seed := range uint64(50) {
			require.Equal(t, m.Namespace("NS"), loadKV(t, heap.CrashImage(seed)).Namespace("NS"))
		}
	}
}
