package vfs

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"time"
)

// lockText is what stands in a lock file.
const lockText = "lock"

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "lock " + e.Path + ": held by another process"
	}
	if e.PID == os.Getpid() {
		return "lock " + e.Path + ": held by this process (pid " + strconv.Itoa(e.PID) + ")"
	}
	return "lock " + e.Path + ": held by process " + strconv.Itoa(e.PID)
}

func base(name string) string { return path.Base(name) }

// fileInfo serves both kinds that do not get theirs from package os.
type fileInfo struct {
	name  string
	size  int64
	mode  os.FileMode
	mtime time.Time
	sys   any
}

func (i *fileInfo) Name() string               { return i.name }
func (i *fileInfo) Size() int64                { return i.size }
func (i *fileInfo) Mode() os.FileMode          { return i.mode }
func (i *fileInfo) ModTime() time.Time         { return i.mtime }
func (i *fileInfo) IsDir() bool                { return i.mode.IsDir() }
func (i *fileInfo) Sys() any                   { return i.sys }
func (i *fileInfo) Type() fs.FileMode          { return i.mode.Type() }
func (i *fileInfo) Info() (fs.FileInfo, error) { return i, nil }
