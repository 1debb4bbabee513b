// Package storetool looks into store directories that nobody has open: what is in them ([Store.Dump]),
// whether everything in them agrees ([Store.Verify]), and a sound copy of one that is damaged ([Repair]).
//
// It opens files for reading only, and works on directories of Apache RocketMQ 4.9 and 5.x as well as on
// our own. It shares the formats with the engine, and how records are framed, but none of its recovery: what
// verify finds is a second opinion. Nothing is ever deleted because it could not be read.
package storetool
