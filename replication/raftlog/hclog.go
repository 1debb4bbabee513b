package raftlog

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// bridge lets the library log to an [slog.Logger], one level lower than it thinks: what it calls an
// error is mostly a peer that does not answer.
type bridge struct {
	hclog.Logger // of what is not overridden
	to           *slog.Logger
}

func newBridge(to *slog.Logger) hclog.Logger { return &bridge{hclog.NewNullLogger(), to} }

func (b *bridge) level(l hclog.Level) slog.Level {
	switch l {
	case hclog.Error:
		return slog.LevelWarn
	case hclog.Warn:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (b *bridge) enabled(l hclog.Level) bool {
	return l > hclog.Trace && b.to.Enabled(context.Background(), b.level(l))
}

// Log and the methods below are those of [hclog.Logger].
func (b *bridge) Log(l hclog.Level, msg string, args ...any) {
	if b.enabled(l) {
		b.to.Log(context.Background(), b.level(l), msg, args...)
	}
}

func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }
func (b *bridge) IsDebug() bool                 { return b.enabled(hclog.Debug) }
func (b *bridge) IsInfo() bool                  { return b.enabled(hclog.Info) }
func (b *bridge) IsWarn() bool                  { return b.enabled(hclog.Warn) }
func (b *bridge) IsError() bool                 { return b.enabled(hclog.Error) }

func (b *bridge) With(args ...any) hclog.Logger { return &bridge{b.Logger, b.to.With(args...)} }
func (b *bridge) Named(string) hclog.Logger     { return b }
