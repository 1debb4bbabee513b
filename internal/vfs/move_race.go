//go:build race

package vfs

// moveBytes copies behind the race detector's back: one side may be a mapping that its owner writes
// at this moment, which a kernel would tolerate too. The loop is on purpose, copy would be watched.
//
//go:norace
func moveBytes(dst, src []byte) int {
	n := min(len(dst), len(src))
	for i := 0; i < n; i++ {
		dst[i] = src[i]
	}
	return n
}

// sameBytes compares as moveBytes copies.
//
//go:norace
func sameBytes(a, b []byte) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
