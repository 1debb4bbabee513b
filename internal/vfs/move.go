//go:build !race

package vfs

import "bytes"

// moveBytes and sameBytes are copy and bytes.Equal. Builds with the race detector have their own.
func moveBytes(dst, src []byte) int { return copy(dst, src) }

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) }
