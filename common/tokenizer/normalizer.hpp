#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace tessera::tokenizer {

// Unicode's form C with the tables of Unicode 9.0, as the reference (tokenizers 0.23.2) has it: a
// code point that Unicode 9.0 had not assigned is inert. Const after construction; any thread.
class Normalizer {
 public:
  Normalizer();
  ~Normalizer();
  Normalizer(Normalizer&&) noexcept;
  Normalizer& operator=(Normalizer&&) noexcept;

  // The text in form C: `text` itself where it already is, otherwise a view of `storage`, which is
  // overwritten. `text` must be valid UTF-8.
  std::string_view normalize(std::string_view text, std::string& storage) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::tokenizer
