#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "common/tokenizer/tokenizer.hpp"

namespace tessera {

// Named texts of about so many bytes on which tokenizers have been slow: long runs that a splitter
// does not split, repeated and random, and merges in the worst order. The same on each call.
std::vector<std::pair<std::string, std::string>> adversarial_texts(const Tokenizer& tokenizer,
                                                                   std::size_t bytes);

}  // namespace tessera
