package main

import (
	"strconv"
	"strings"
	"time"
)

// parseSize reads 1KiB, 128B, 4096, 1.5MiB.
func parseSize(flag, s string) (int64, error) {
	units := []struct {
		name  string
		bytes float64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"B", 1}, {"", 1}}
	text := strings.TrimSpace(s)
	for _, u := range units {
		num, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || !(v >= 0) || v*u.bytes > 1<<60 {
			break
		}
		return int64(v * u.bytes), nil
	}
	return 0, usage("--%s=%s is no size: use a number with B, KiB, MiB or GiB, such as 1KiB", flag, s)
}

func parseDuration(flag, s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, usage("--%s=%s is no duration: use a number with ms, s, m or h, such as 10s", flag, s)
	}
	return d, nil
}

func parseInt(flag, s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0, usage("--%s=%s is no whole number: use one such as 64", flag, s)
	}
	return n, nil
}

// list splits the levels of a factor at commas.
func list(flag, s string) ([]string, error) {
	var out []string
	for _, v := range strings.Split(s, ",") {
		if v = strings.TrimSpace(v); v == "" {
			return nil, usage("--%s=%s has an empty level: separate levels by single commas", flag, s)
		}
		out = append(out, v)
	}
	return out, nil
}

// levels parses every level of a factor.
func levels[T any](flag, s string, parse func(flag, s string) (T, error)) ([]T, error) {
	words, err := list(flag, s)
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(words))
	for _, w := range words {
		v, err := parse(flag, w)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func word(_, s string) (string, error) { return s, nil }
