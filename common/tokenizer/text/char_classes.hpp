#pragma once

#include "common/tokenizer/text/two_stage_table.hpp"
#include "common/tokenizer/text/unicode_tables.hpp"

namespace tessera::tokenizer {

// The class of every code point. Const after construction; any thread.
class CharClasses {
 public:
  // The one table, made at the first call.
  static const CharClasses& instance();

  // `code_point` must be below 0x110000.
  CharClass of(char32_t code_point) const { return static_cast<CharClass>(table_[code_point]); }

 private:
  CharClasses();

  TwoStageTable table_;
};

}  // namespace tessera::tokenizer
