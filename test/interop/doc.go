// Package interop exchanges store directories with the real Apache store, 4.9 and 5.3: what one
// side writes, the other opens, after a clean stop and after a SIGKILL.
//
// The tests need the build tag interop, Java and the classes that `make interop-store` builds in
// java/target; RMQ_INTEROP_LONG=1 runs more rounds. Apache is driven by the program in java/,
// which prints the answers of its store as lines of JSON; package compat puts the same questions
// to our engine. Without Java, package compat still checks sample directories.
package interop
