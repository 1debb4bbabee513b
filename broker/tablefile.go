package broker

import (
	"encoding/json"

	"rmq/remoting/protocol"
)

// tableFile writes a config file of the form {"dataVersion":…,"<table>":{name:value,…}}, one value a
// line, which Apache reads like its own.
type tableFile struct {
	b     []byte
	first bool
}

func newTableFile(v protocol.DataVersion, table string, sizeHint int) *tableFile {
	f := &tableFile{b: make([]byte, 0, sizeHint+256)}
	f.b = append(f.b, "{\n\t\"dataVersion\":"...)
	f.b = append(f.b, protocol.EncodeBody(v)...)
	f.table(table)
	return f
}

// table begins a table behind what there is.
func (f *tableFile) table(name string) {
	f.b = append(f.b, ",\n\t\""...)
	f.b = append(f.b, name...)
	f.b = append(f.b, "\":{"...)
	f.first = true
}

// add appends a value, which is JSON.
func (f *tableFile) add(name string, value []byte) {
	f.key(name)
	f.b = append(f.b, value...)
}

// key appends the name of a value that the caller appends to b.
func (f *tableFile) key(name string) {
	if !f.first {
		f.b = append(f.b, ',')
	}
	f.first = false
	f.b = append(f.b, "\n\t\t"...)
	f.b = appendJSONString(f.b, name)
	f.b = append(f.b, ':')
}

// endTable ends the table that was begun last.
func (f *tableFile) endTable() { f.b = append(f.b, "\n\t}"...) }

// end ends the last table and the file.
func (f *tableFile) end() []byte {
	f.endTable()
	return append(f.b, "\n}"...)
}

func appendJSONString(dst []byte, s string) []byte {
	if legalName(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	b, _ := json.Marshal(s) // strings always have a JSON form
	return append(dst, b...)
}
