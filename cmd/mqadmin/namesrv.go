package main

import (
	"context"
	"maps"
	"slices"

	"rmq/client"
)

func namesrvCommands() []command {
	perm := func(verb string, call func(*client.Admin, context.Context, string) (map[string]int, error)) func(*flags) action {
		return func(f *flags) action { return permAction(f, verb, call) }
	}
	return []command{
		{"getNamesrvConfig", "Show the configuration of the name servers", getNamesrvConfig},
		{"updateNamesrvConfig", "Change a key of the configuration of the name servers", updateNamesrvConfig},
		{"updateKvConfig", "Store a value with the name servers", updateKvConfig},
		{"deleteKvConfig", "Remove a value from the name servers", deleteKvConfig},
		{"wipeWritePerm", "Take a broker out of the routes that producers see", perm("wipe", (*client.Admin).WipeWritePerm)},
		{"addWritePerm", "Put a broker back into the routes that producers see", perm("add", (*client.Admin).AddWritePerm)},
	}
}

// serverConfigs are configurations by the address of the name server.
type serverConfigs map[string]map[string]string

func (c serverConfigs) text(p *page) {
	for _, addr := range slices.Sorted(maps.Keys(c)) {
		p.line("============%s============", addr)
		for _, name := range slices.Sorted(maps.Keys(c[addr])) {
			p.line("%-50s=  %s", name, c[addr][name])
		}
	}
}

func getNamesrvConfig(*flags) action {
	return func(ctx context.Context, t *tool) (any, error) {
		c, err := t.admin.NameServerConfigs(ctx)
		return serverConfigs(c), err
	}
}

func updateNamesrvConfig(f *flags) action {
	key := f.need("key", "k", "name of the key")
	value := f.need("value", "v", "its new value")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := t.admin.UpdateNameServerConfig(ctx, map[string]string{*key: *value}); err != nil {
			return nil, err
		}
		servers := t.admin.NameServers()
		return says(map[string]any{"nameServers": servers, *key: *value}, "update name server config success!%v\n%s : %s", servers, *key, *value), nil
	}
}

func updateKvConfig(f *flags) action {
	namespace := f.need("namespace", "s", "namespace of the key")
	key := f.need("key", "k", "name of the key")
	value := f.need("value", "v", "its value")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := t.admin.PutKV(ctx, *namespace, *key, *value); err != nil {
			return nil, err
		}
		return says(map[string]string{"namespace": *namespace, "key": *key, "value": *value}, "create or update kv config to namespace success."), nil
	}
}

func deleteKvConfig(f *flags) action {
	namespace := f.need("namespace", "s", "namespace of the key")
	key := f.need("key", "k", "name of the key")
	return func(ctx context.Context, t *tool) (any, error) {
		if err := t.admin.DeleteKV(ctx, *namespace, *key); err != nil {
			return nil, err
		}
		return says(map[string]string{"namespace": *namespace, "key": *key}, "delete kv config from namespace success."), nil
	}
}

// permAction changes what the name servers say of a broker.
func permAction(f *flags, verb string, call func(*client.Admin, context.Context, string) (map[string]int, error)) action {
	name := f.need("broker-name", "b", "name of the broker")
	return func(ctx context.Context, t *tool) (any, error) {
		counts, err := call(t.admin, ctx, *name)
		r := &report{data: map[string]any{"broker": *name, "topics": counts}}
		for _, addr := range slices.Sorted(maps.Keys(counts)) {
			r.and("%s write perm of broker[%s] in name server[%s] OK, %d", verb, *name, addr, counts[addr])
		}
		return r, err
	}
}
