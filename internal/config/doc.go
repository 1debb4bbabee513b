// Package config reads settings from Java property files, from the environment and from flags into
// one struct, and remembers where each value came from.
//
// The fields of the struct carry the names of the keys in their tags ([KeysOf]). [Keys.Load] puts
// layers of settings over the defaults; every bad value is reported at once, with its place, the
// limit it breaks and what to write instead. A key that nobody knows is named together with its
// nearest known name. The result is a [Values] that never changes: [Values.Update] makes the next
// one. What [Values.Append] prints is a valid file that gives the same values when read.
//
// The files are those of java.util.Properties: Latin-1 with \uXXXX escapes.
package config
