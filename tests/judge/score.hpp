#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <ostream>
#include <string>
#include <vector>

#include "common/png.hpp"
#include "ebb/core/error.hpp"
#include "judge/description.hpp"
#include "judge/sight.hpp"
#include "judge/tally.hpp"
#include "judge/verdict.hpp"

namespace ebb::judge {

/// What a picture was drawn for: the first line of its text entry "parameters", which `flux` writes.
/// @throws FileError where there is none
inline std::string prompt_of(const examples::PngPicture& picture, const std::string& where) {
  const auto entry = std::find_if(picture.text.begin(), picture.text.end(),
                                  [](const examples::PngText& text) { return text.first == "parameters"; });
  if (entry == picture.text.end())
    throw FileError(concat(where, ": expected a text entry \"parameters\" with the prompt, as flux writes it"));
  return entry->second.substr(0, entry->second.find('\n'));
}

/// @throws ConfigError that names the file, for a prompt outside of the grammar
inline Description asked_of(const std::string& prompt, const std::string& where) {
  try {
    return Description::parse(prompt);
  } catch (const ConfigError& error) {
    throw ConfigError(concat(where, ": ", error.what()));
  }
}

/// The program `score`: a line of a Markdown table to `out`; what is wrong in which picture to `details`, where errors
/// go too. Returns its status: 0, or 2 for an error.
inline int run_score(int argc, const char* const* argv, std::ostream& out, std::ostream& details) {
  std::vector<std::string> names;
  std::string label;
  bool head = false;
  CLI::App app(
      "Judges pictures by the prompts that flux wrote into them. Prints a line of a Markdown table, and on "
      "standard error what is wrong.",
      "score");
  app.add_option("pictures", names, "PNG files")->required();
  app.add_option("--label", label, "first cell of the line");
  app.add_flag("--head", head, "print the head of the table first");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, details) == 0 ? 0 : 2;
  }
  try {
    Tally tally;
    for (const std::string& name : names) {
      const examples::PngPicture picture = examples::read_png(name);
      const std::string prompt = prompt_of(picture, name);
      const Verdict verdict = compare(look(picture), asked_of(prompt, name));
      tally.add(verdict);
      std::string wrong;
      for (const auto* checks : {&verdict.content, &verdict.style})
        for (const Check& check : *checks)
          if (!check.held) wrong += concat(wrong.empty() ? "" : "; ", check.what);
      if (!wrong.empty())
        details << name << ": " << prompt << "\n  " << (verdict.right() ? "right, but not: " : "not: ") << wrong
                << '\n';
    }
    out << (head ? Tally::head() : "") << tally.row(label);
    return 0;
  } catch (const std::exception& error) {
    details << "score: " << error.what() << '\n';
    return 2;
  }
}

}  // namespace ebb::judge
