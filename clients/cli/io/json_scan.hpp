#pragma once

#include <string_view>
#include <vector>

namespace tessera::cli {

// The members of an object of JSON as they were written, bytes of `line`: parsers give values, of
// which 1.0, 12345678901234567890123 and {"a": 1} cannot be written again as they were. The line
// must be one whole object of valid JSON; pure.
struct RawMember {
  std::string_view key;  // With its quotes.
  std::string_view value;
};
std::vector<RawMember> members_of(std::string_view line);

// The value of the member at `place`, from 0; "" when there are fewer.
std::string_view raw_member(std::string_view line, std::size_t place);

}  // namespace tessera::cli
