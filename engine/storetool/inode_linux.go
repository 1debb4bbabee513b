package storetool

import (
	"os"
	"strconv"
	"syscall"
)

// inode is how /proc/locks ends the name of a file: ":<inode>".
func inode(st os.FileInfo) (string, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return ":" + strconv.FormatUint(sys.Ino, 10), true
}
