package daemon

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	hugePage     = 2 << 20
	heapSpan     = 64 << 30 // the runtime lays arenas one behind the other, from an address that ends with so many zeros
	hugeHeapLook = time.Second

	madvCollapse = 25 // MADV_COLLAPSE of Linux 6.1
)

// HugeHeap asks the kernel to keep the heap of this process in huge pages, and goes on asking as the heap grows, until ctx
// ends. It is a wish: what cannot be had stays as it is, and nothing is done where
// /sys/kernel/mm/transparent_hugepage/enabled says never.
//
// What for: of a process that is killed the kernel takes back the memory before it closes the sockets, and others notice its
// end by those. 128 MiB of small pages take 10 to 16 ms, of huge ones one.
func HugeHeap(ctx context.Context) error {
	mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || bytes.Contains(mode, []byte("[never]")) {
		return nil // there are none
	}
	h := newHugeHeap()
	tick := time.NewTicker(hugeHeapLook)
	defer tick.Stop()
	for {
		if err := h.look(ctx); err != nil {
			return nil // without /proc it cannot be done
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// hugeHeap knows which pages of the heap it has asked for.
type hugeHeap struct {
	low, high uintptr // where the heap is
	asked     map[uintptr]bool
}

func newHugeHeap() *hugeHeap {
	some := new([4096]byte)
	at := uintptr(unsafe.Pointer(some)) &^ (heapSpan - 1)
	return &hugeHeap{low: at, high: at + heapSpan, asked: map[uintptr]bool{}}
}

// look asks for what is new.
func (h *hugeHeap) look(ctx context.Context) error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() && ctx.Err() == nil {
		from, to, ok := anonymous(lines.Text())
		if !ok || from < h.low || to > h.high {
			continue
		}
		from, to = (from+hugePage-1)&^(hugePage-1), to&^(hugePage-1)
		if from >= to {
			continue
		}
		advise(from, to-from, unix.MADV_HUGEPAGE) // what the runtime maps anew in the same place has forgotten it
		for at := from; at < to && ctx.Err() == nil; at += hugePage {
			if !h.asked[at] {
				h.asked[at] = true
				advise(at, hugePage, madvCollapse) // one at a time: faults wait meanwhile
			}
		}
	}
	return lines.Err()
}

// anonymous reads one line of /proc/self/maps: "c000000000-c000400000 rw-p 00000000 00:00 0", with a name perhaps.
func anonymous(line string) (from, to uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 5 || f[1] != "rw-p" || f[4] != "0" {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	x, err1 := strconv.ParseUint(a, 16, 64)
	y, err2 := strconv.ParseUint(b, 16, 64)
	return uintptr(x), uintptr(y), err1 == nil && err2 == nil
}

// advise tells the kernel something of a range; that it cannot do it is no error.
func advise(at, n uintptr, what int) { _, _, _ = unix.Syscall(unix.SYS_MADVISE, at, n, uintptr(what)) }
