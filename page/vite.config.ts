// How the page is built: one document, one script, one style sheet, all served from the program.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    // Nothing is inlined: the content security policy allows files of this server only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    // `npm run dev` beside a running server: its interface under the same origin.
    proxy: { "/api": process.env.BUILDFLOW_ADDR ?? "http://127.0.0.1:7420" },
  },
});
