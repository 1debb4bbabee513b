// Package run starts goroutines that have an owner. It is the only place with a bare go statement.
package run

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync"
)

// Group owns goroutines: it names them, cancels them together and waits for them.
//
// Each goroutine carries the pprof label goroutine=<group>/<name>. The first error cancels the
// group's context and is what [Group.Wait] returns. A panic is raised again under the goroutine's
// name, in the goroutine, so it still ends the process.
//
// Safe for concurrent use, except that Go must not race with Wait, unless a goroutine of the group calls it.
// Whoever is outside and may come late uses [Group.TryGo].
type Group struct {
	name   string
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	err       error
	cancelled bool
}

// New returns an empty group whose context ends with ctx, with [Group.Cancel], with the first
// error, or when [Group.Wait] returns.
func New(ctx context.Context, name string) *Group {
	ctx, cancel := context.WithCancel(ctx)
	return &Group{name: name, ctx: ctx, cancel: cancel}
}

// Go starts f under the name. f is expected to return soon after its context ends.
func (g *Group) Go(name string, f func(ctx context.Context) error) {
	g.wg.Add(1)
	g.start(name, f)
}

// TryGo is Go unless the group has been cancelled: f is not started then, and the result is false. It may race
// with a Wait that comes after [Group.Cancel].
func (g *Group) TryGo(name string, f func(ctx context.Context) error) bool {
	g.mu.Lock()
	if g.cancelled {
		g.mu.Unlock()
		return false
	}
	g.wg.Add(1)
	g.mu.Unlock()
	g.start(name, f)
	return true
}

// start runs f, which has been counted.
func (g *Group) start(name string, f func(ctx context.Context) error) {
	full := g.name + "/" + name
	go func() {
		defer func() {
			if p := recover(); p != nil {
				// Wait must not return first: the process could end well.
				panic(fmt.Sprintf("goroutine %s: %v", full, p))
			}
			g.wg.Done()
		}()
		pprof.Do(g.ctx, pprof.Labels("goroutine", full), func(ctx context.Context) {
			if err := f(ctx); err != nil {
				g.fail(fmt.Errorf("%s: %w", full, err))
			}
		})
	}()
}

func (g *Group) fail(err error) {
	g.mu.Lock()
	if g.err == nil && (!g.cancelled || !errors.Is(err, context.Canceled)) {
		g.err = err
	}
	g.mu.Unlock()
	g.cancel()
}

// Context is what the goroutines of the group get.
func (g *Group) Context() context.Context { return g.ctx }

// Cancel asks every goroutine to end. A context.Canceled returned after it is not an error.
func (g *Group) Cancel() {
	g.mu.Lock()
	g.cancelled = true
	g.mu.Unlock()
	g.cancel()
}

// Wait waits until every goroutine has returned and gives the first error among them.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
