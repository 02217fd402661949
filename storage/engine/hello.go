package engine

import (
	"encoding/binary"
	"strings"
)

// The stock driver begins with this query and asks for Native blocks of its
// own revision. libchdb writes revision 0 and cannot be told otherwise, so the
// answer is a block of the client's revision that reports revision 0; from
// then on both sides speak that.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// Revisions at which the Native block changes its form.
const (
	revisionBlockInfo           = 1
	revisionCustomSerialization = 54454
)

func isHello(req *request) bool {
	return req.revision > 0 && strings.EqualFold(req.format, "Native") && strings.TrimSpace(req.sql) == helloQuery
}

// helloBlock is the one row of the answer at the client's revision.
func helloBlock(revision int, version string) []byte {
	var b []byte
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	if revision >= revisionBlockInfo {
		b = append(b, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0) // no overflows, no bucket
	}
	b = append(b, 4, 1) // columns, rows
	column := func(name, typ string) {
		str(name)
		str(typ)
		if revision >= revisionCustomSerialization {
			b = append(b, 0)
		}
	}
	column("displayName()", "String")
	str("signalbox")
	column("version()", "String")
	str(version)
	column("revision()", "UInt32")
	b = append(b, 0, 0, 0, 0)
	column("timezone()", "String")
	str("UTC")
	return b
}

// emptyBlock is a Native block at revision 0 with columns and no rows, which
// tells a client the shape of an empty result.
func emptyBlock(columns []param) []byte {
	b := binary.AppendUvarint(nil, uint64(len(columns)))
	b = append(b, 0)
	for _, c := range columns {
		for _, s := range []string{c.name, c.value} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return b
}
