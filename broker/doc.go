// Package broker is the process that stores messages and hands them out.
package broker
