//go:build invariants

package engine

import "fmt"

func assertOrder(positions ...int64) {
	panic(fmt.Sprint("BUG: dispatched, visible, ackable, flushed, written, appended out of order: ", positions))
}
