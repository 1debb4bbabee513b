// Package namesrv is the process that tells clients which brokers have a topic.
package namesrv
