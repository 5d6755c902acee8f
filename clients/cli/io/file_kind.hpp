#pragma once

#include <string>
#include <string_view>

namespace tessera::cli {

// What the first bytes of an input tell. Pure; none of it changes how a file is read: it is for
// refusing what would be embedded as something else.

// Why a file that begins so cannot be an input ("is compressed by gzip; give it as: zcat FILE |
// ...") or "" when nothing speaks against it.
std::string binary_refusal(const std::string& path, std::string_view start);

// The encoding that a byte order mark states: "UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"; ""
// without a mark or with that of UTF-8.
std::string marked_encoding(std::string_view start);

// Why the NUL bytes of a text that has no mark look like another encoding's, or "".
std::string nul_suspicion(std::string_view start);

// The offset of the first byte of `sample` that is no UTF-8, or npos. A sequence that the end of
// the sample cuts is no fault unless the sample is the `whole` file.
std::size_t sample_utf8_fault(std::string_view sample, bool whole);

// A name out of a file, as a person reads it in a message: control characters as \xNN, cut when
// long, in double quotes.
std::string shown(std::string_view name);

// The name as a word of a shell's command line.
std::string shell_word(std::string_view name);

}  // namespace tessera::cli
