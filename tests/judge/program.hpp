#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>

#include "common/png.hpp"
#include "judge/description.hpp"
#include "judge/sight.hpp"
#include "judge/verdict.hpp"

namespace ebb::judge {

/// The program `judge`. Returns its status: 0, or 1 where the picture is not what was asked for, or 2 for an error,
/// whose message goes to `errors`.
inline int run(int argc, const char* const* argv, std::ostream& out, std::ostream& errors) {
  std::string picture, expect, prompt;
  CLI::App app("Prints as JSON what is seen in a picture of world.py. With --expect or --prompt it ends with status 0 "
               "when that is what was asked for, with 1 when it is not; 2 is an error.",
               "judge");
  app.add_option("picture", picture, "PNG file")->required();
  auto* file = app.add_option("--expect", expect, "JSON description as world.py writes it");
  auto* caption = app.add_option("--prompt", prompt, "caption of world.py's grammar")->excludes(file);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, errors) == 0 ? 0 : 2;
  }
  try {
    const Sight sight = look(examples::read_png(picture));
    nlohmann::ordered_json json{{"seen", to_json(sight)}};
    int status = 0;
    if (file->count() + caption->count() > 0) {
      const Verdict verdict =
          compare(sight, file->count() > 0 ? Description::read(expect) : Description::parse(prompt));
      json["verdict"] = to_json(verdict);
      status = verdict.right() ? 0 : 1;
    }
    out << json.dump(1) << '\n';
    return status;
  } catch (const std::exception& error) {
    errors << "judge: " << error.what() << '\n';
    return 2;
  }
}

}  // namespace ebb::judge
