"""Vocabulary of the quickstart corpus: constant tables, written by us.

A row is one word; columns are divided by `|`.

    NOUNS        article noun | plural ("-": mass noun) | English | tags        `*`: weak declension (-n/-en)
    VERBS        infinitive | English | object tags | extras                    regular verb
                 infinitive, er-present, preterite, participle | English ...    irregular verb
    ADJECTIVES   German | English | tags of the nouns it may go with

`ab.sagen` is separable. `sein.` before a participle takes sein in the perfect. An English verb gives its past
and participle where they are irregular (`cut cut cut`), and `_` joins a particle (`switch_off`). Tags say
which nouns make plausible objects and adjectives (`own`: a person who goes with a possessive); `in/in` is the
German and English preposition of a place.
Extras: `stative` (no progressive), `unwilled` (nobody plans it), `place` (may take a place), `mit:X,Y` (instruments).
A German adjective writes its inflected stem after `/` where it differs (`teuer/teur`).
"""

DOMAINS = ("kitchen", "travel", "workshop", "office", "clinic")

NOUNS: dict[str, tuple[str, ...]] = {
    "kitchen": (
        "die Zwiebel|Zwiebeln|onion|veg",
        "die Kartoffel|Kartoffeln|potato|veg",
        "die Tomate|Tomaten|tomato|veg",
        "der Apfel|Äpfel|apple|veg",
        "die Möhre|Möhren|carrot|veg",
        "der Pilz|Pilze|mushroom|veg",
        "die Suppe|Suppen|soup|meal hot",
        "der Salat|Salate|salad|meal",
        "der Nudelsalat|Nudelsalate|pasta salad|meal",
        "der Fisch|Fische|fish|meal hot fry",
        "der Kuchen|Kuchen|cake|meal bake",
        "der Apfelkuchen|Apfelkuchen|apple cake|meal bake",
        "das Brot|-|bread|stuff bake",
        "die Butter|-|butter|stuff",
        "das Mehl|-|flour|stuff",
        "der Käse|-|cheese|stuff",
        "der Reis|-|rice|stuff boil",
        "die Milch|-|milk|drink",
        "der Tee|-|tea|drink",
        "der Topf|Töpfe|pot|dish pan",
        "die Pfanne|Pfannen|pan|dish pan",
        "die Schüssel|Schüsseln|bowl|dish",
        "der Teller|Teller|plate|dish",
        "die Tasse|Tassen|cup|dish",
        "das Glas|Gläser|glass|dish",
        "das Messer|Messer|knife|tool",
        "das Brotmesser|Brotmesser|bread knife|tool",
        "der Löffel|Löffel|spoon|tool",
        "die Küche|Küchen|kitchen|room in/in",
        "das Restaurant|Restaurants|restaurant|room in/in",
        "der Tisch|Tische|table|spot auf/on",
        "der Kühlschrank|Kühlschränke|fridge|spot in/in",
        "die Theke|Theken|counter|spot auf/on",
        "der Koch|Köche|cook|person",
        "die Kellnerin|Kellnerinnen|waitress|person",
        "der Gast|Gäste|guest|person own",
    ),
    "travel": (
        "der Zug|Züge|train|vehicle land",
        "der Bus|Busse|bus|vehicle land",
        "das Flugzeug|Flugzeuge|plane|vehicle",
        "das Schiff|Schiffe|ship|vehicle",
        "das Taxi|Taxis|taxi|vehicle land",
        "das Boot|Boote|boat|rental",
        "das Auto|Autos|car|rental",
        "der Koffer|Koffer|suitcase|bag",
        "der Rucksack|Rucksäcke|backpack|bag",
        "die Tasche|Taschen|bag|bag",
        "die Fahrkarte|Fahrkarten|ticket|paper bookable",
        "der Reisepass|Reisepässe|passport|paper",
        "der Stadtplan|Stadtpläne|city map|paper guide",
        "die Kamera|Kameras|camera|gear",
        "der Regenschirm|Regenschirme|umbrella|gear",
        "der Zimmerschlüssel|Zimmerschlüssel|room key|gear",
        "die Ansichtskarte|Ansichtskarten|postcard|paper",
        "das Zimmer|Zimmer|room|stay bookable",
        "die Reise|Reisen|trip|bookable",
        "der Flug|Flüge|flight|bookable",
        "das Hotel|Hotels|hotel|room in/at sight stay",
        "der Bahnhof|Bahnhöfe|station|room an/at",
        "der Flughafen|Flughäfen|airport|room an/at",
        "der Strand|Strände|beach|room an/on sight",
        "das Museum|Museen|museum|room in/in sight",
        "die Stadt|Städte|town|room in/in sight",
        "die Insel|Inseln|island|room auf/on sight",
        "die Burg|Burgen|castle|sight",
        "die Brücke|Brücken|bridge|sight",
        "die Bank|Bänke|bench|spot auf/on",
        "der Schrank|Schränke|wardrobe|spot in/in",
        "der Tourist*|Touristen|tourist|person",
        "die Fahrerin|Fahrerinnen|driver|person",
        "der Pilot*|Piloten|pilot|person",
    ),
    "workshop": (
        "der Hammer|Hämmer|hammer|tool",
        "der Schraubenzieher|Schraubenzieher|screwdriver|tool",
        "die Säge|Sägen|saw|tool",
        "die Feile|Feilen|file|tool",
        "der Pinsel|Pinsel|brush|tool",
        "die Bohrmaschine|Bohrmaschinen|drill|machine tool",
        "die Leiter|Leitern|ladder|aid",
        "die Schraube|Schrauben|screw|part metal thread",
        "der Nagel|Nägel|nail|part metal",
        "das Rohr|Rohre|pipe|part metal long",
        "das Kabel|Kabel|cable|part wired long",
        "das Brett|Bretter|board|plank long",
        "das Holz|-|wood|stuff timber",
        "der Leim|-|glue|stuff",
        "die Farbe|-|paint|stuff",
        "der Motor|Motoren|engine|machine wired",
        "die Pumpe|Pumpen|pump|machine wired",
        "die Lampe|Lampen|lamp|machine wired",
        "das Fahrrad|Fahrräder|bicycle|bike",
        "der Reifen|Reifen|tyre|part bike spare",
        "die Bremse|Bremsen|brake|bike spare thread",
        "das Regal|Regale|shelf|wooden",
        "der Stuhl|Stühle|chair|wooden",
        "die Tür|Türen|door|wooden",
        "das Schloss|Schlösser|lock|part metal spare thread",
        "die Werkstatt|Werkstätten|workshop|room in/in",
        "die Garage|Garagen|garage|room in/in",
        "der Keller|Keller|cellar|room in/in",
        "der Werkzeugkasten|Werkzeugkästen|toolbox|spot in/in",
        "die Werkbank|Werkbänke|workbench|spot auf/on",
        "die Kiste|Kisten|crate|spot in/in",
        "der Mechaniker|Mechaniker|mechanic|person own",
        "die Tischlerin|Tischlerinnen|carpenter|person",
        "der Lehrling|Lehrlinge|apprentice|person own",
    ),
    "office": (
        "der Brief|Briefe|letter|doc mail",
        "die E-Mail|E-Mails|email|mail file",
        "die Rechnung|Rechnungen|invoice|doc file",
        "der Vertrag|Verträge|contract|doc file",
        "der Bericht|Berichte|report|doc file",
        "das Formular|Formulare|form|doc",
        "die Liste|Listen|list|doc file",
        "das Angebot|Angebote|offer|doc file",
        "der Ordner|Ordner|folder|device",
        "der Stift|Stifte|pen|device pen",
        "der Drucker|Drucker|printer|device power",
        "der Computer|Computer|computer|device power",
        "der Bildschirm|Bildschirme|screen|device power",
        "die Tastatur|Tastaturen|keyboard|device",
        "der Kalender|Kalender|calendar|device",
        "der Bürostuhl|Bürostühle|office chair|device",
        "die Besprechung|Besprechungen|meeting|event",
        "der Termin|Termine|appointment|event",
        "die Schulung|Schulungen|training course|event",
        "das Projekt|Projekte|project|event",
        "das Büro|Büros|office|room in/in",
        "das Archiv|Archive|archive|room in/in",
        "der Konferenzraum|Konferenzräume|conference room|room in/in",
        "der Schreibtisch|Schreibtische|desk|spot auf/on",
        "der Papierkorb|Papierkörbe|wastebasket|spot in/in",
        "der Aktenschrank|Aktenschränke|filing cabinet|spot in/in",
        "die Chefin|Chefinnen|boss|person own",
        "der Kollege*|Kollegen|colleague|person own",
        "der Kunde*|Kunden|customer|person own",
        "der Praktikant*|Praktikanten|intern|person own",
    ),
    "clinic": (
        "die Tablette|Tabletten|pill|med pill",
        "das Medikament|Medikamente|medicine|med pill",
        "die Salbe|-|ointment|med",
        "der Hustensaft|-|cough syrup|med pill",
        "die Spritze|Spritzen|syringe|gear",
        "der Verband|Verbände|bandage|gear",
        "das Rezept|Rezepte|prescription|paper",
        "das Röntgenbild|Röntgenbilder|X-ray|paper scan",
        "die Blutprobe|Blutproben|blood sample|scan",
        "das Thermometer|Thermometer|thermometer|gear",
        "der Rollstuhl|Rollstühle|wheelchair|aid",
        "die Decke|Decken|blanket|gear",
        "die Wunde|Wunden|wound|sore",
        "das Knie|Knie|knee|body",
        "der Arm|Arme|arm|body bone",
        "das Bein|Beine|leg|body bone",
        "der Finger|Finger|finger|body bone",
        "das Auge|Augen|eye|body",
        "der Zahn|Zähne|tooth|body",
        "das Krankenhaus|Krankenhäuser|hospital|room in/in",
        "das Wartezimmer|Wartezimmer|waiting room|room in/in",
        "das Labor|Labore|laboratory|room in/in",
        "die Apotheke|Apotheken|pharmacy|room in/in",
        "das Bett|Betten|bed|spot auf/on",
        "der Nachttisch|Nachttische|bedside table|spot auf/on",
        "der Arzneischrank|Arzneischränke|medicine cabinet|spot in/in",
        "der Arzt|Ärzte|doctor|person own",
        "die Krankenschwester|Krankenschwestern|nurse|person",
        "der Patient*|Patienten|patient|person own ill",
        "das Kind|Kinder|child|person own ill",
        "die Nachbarin|Nachbarinnen|neighbour|person own ill",
    ),
}

VERBS: dict[str, tuple[str, ...]] = {
    "kitchen": (
        "schneiden,schneidet,schnitt,geschnitten|cut cut cut|veg|place mit:Messer",
        "waschen,wäscht,wusch,gewaschen|wash|veg dish|place",
        "schälen|peel|veg|place mit:Messer",
        "kochen|cook|meal veg|place",
        "braten,brät,briet,gebraten|fry|veg fry|place",
        "backen,backt,backte,gebacken|bake|bake|place",
        "essen,isst,aß,gegessen|eat ate eaten|meal veg|place",
        "probieren|taste|meal stuff drink|",
        "servieren|serve|meal drink|place",
        "trinken,trinkt,trank,getrunken|drink drank drunk|drink|place",
        "wiegen,wiegt,wog,gewogen|weigh|stuff veg|",
        "füllen|fill|dish|",
        "ab.trocknen|dry|dish|place",
        "auf.wärmen|warm_up|hot|",
    ),
    "travel": (
        "packen|pack|bag|place",
        "buchen|book|bookable|",
        "besuchen|visit|sight|",
        "verpassen|miss|vehicle|unwilled",
        "vergessen,vergisst,vergaß,vergessen|forget forgot forgotten|bag paper gear|stative unwilled",
        "verlieren,verliert,verlor,verloren|lose lost lost|bag paper gear|unwilled place",
        "fotografieren|photograph|sight vehicle|",
        "reservieren|reserve|stay bookable|",
        "mieten|rent|rental|place",
        "erreichen|reach|sight vehicle|stative",
        "nehmen,nimmt,nahm,genommen|take took taken|vehicle|",
        "aus.packen|unpack|bag|place",
        "beschreiben,beschreibt,beschrieb,beschrieben|describe|sight stay|",
        "ab.holen|pick_up|bag paper rental|",
    ),
    "workshop": (
        "reparieren|repair|machine bike wooden|place",
        "sägen|saw|plank timber|place mit:Säge",
        "messen,misst,maß,gemessen|measure|long wooden|",
        "schleifen,schleift,schliff,geschliffen|sand|plank timber wooden|place",
        "streichen,streicht,strich,gestrichen|paint|wooden|place mit:Pinsel",
        "bauen|build built built|wooden|place",
        "prüfen|check|machine bike metal|",
        "wechseln|change|spare|place",
        "ölen|oil|bike spare|",
        "fest.ziehen,zieht,zog,festgezogen|tighten|thread|mit:Schraubenzieher",
        "an.schließen,schließt,schloss,angeschlossen|connect|wired|",
        "ein.schalten|switch_on|machine|",
        "aus.schalten|switch_off|machine|",
        "polieren|polish|metal wooden|place",
    ),
    "office": (
        "schreiben,schreibt,schrieb,geschrieben|write wrote written|mail doc|place mit:Stift",
        "lesen,liest,las,gelesen|read read read|mail doc|place",
        "unterschreiben,unterschreibt,unterschrieb,unterschrieben|sign|doc|place mit:Stift",
        "aus.drucken|print|file|",
        "kopieren|copy|doc file|",
        "übersetzen|translate|mail doc|",
        "verschieben,verschiebt,verschob,verschoben|postpone|event|",
        "planen|plan|event|",
        "ab.sagen|cancel|event|",
        "vor.bereiten|prepare|event doc|place",
        "löschen|delete|file|",
        "beantworten|answer|mail|",
        "speichern|save|file|",
        "an.rufen,ruft,rief,angerufen|call|person|",
        "ein.laden,lädt,lud,eingeladen|invite|person|",
    ),
    "clinic": (
        "untersuchen|examine|body ill scan sore|place",
        "behandeln|treat|ill sore body|place mit:Salbe",
        "verschreiben,verschreibt,verschrieb,verschrieben|prescribe|med|",
        "verbinden,verbindet,verband,verbunden|bandage|bone sore|",
        "impfen|vaccinate|ill|place",
        "ein.nehmen,nimmt,nahm,eingenommen|take took taken|pill|",
        "schlucken|swallow|pill|",
        "reinigen|clean|sore gear|",
        "pflegen|care_for|ill|",
        "wecken|wake woke woken|ill|",
        "beobachten|observe|ill sore|",
        "begleiten|accompany|ill|",
        "röntgen|X-ray|bone|",
        "vor.bereiten|prepare|scan gear|place",
    ),
}

# Portable or saleable things; the shared verbs take any of them.
GOODS = ("veg", "meal", "stuff", "drink", "dish", "tool", "bag", "gear", "aid", "part", "plank", "metal", "machine", "bike",
         "wooden", "device", "med", "rental", "guide", "spare")
DURABLE = ("dish", "tool", "bag", "gear", "aid", "part", "plank", "metal", "machine", "bike", "wooden", "device", "rental",
           "guide", "spare")
SMALL = ("veg", "meal", "stuff", "drink", "dish", "tool", "bag", "paper", "gear", "part", "metal", "doc", "pen", "med")

SHARED_VERBS = (
    "kaufen|buy bought bought|goods|",
    "verkaufen|sell sold sold|goods|",
    "bestellen|order|goods|",
    "brauchen|need|goods paper doc|stative unwilled",
    "suchen|look_for|goods paper doc person|place",
    "finden,findet,fand,gefunden|find found found|goods paper doc|stative place",
    "holen|get got got|small|",
    "bezahlen|pay_for paid_for paid_for|goods bookable|",
    "sehen,sieht,sah,gesehen|see saw seen|person vehicle sight goods|stative unwilled place",
)

GIVING_VERBS = (
    "geben,gibt,gab,gegeben|give gave given|small|",
    "zeigen|show showed shown|small sight vehicle machine|",
    "bringen,bringt,brachte,gebracht|bring brought brought|small|",
    "leihen,leiht,lieh,geliehen|lend lent lent|tool gear aid bag bike rental pen|",
    "schicken|send sent sent|doc mail paper part med|",
)

DATIVE_VERBS = (
    "helfen,hilft,half,geholfen|help|person|place",
    "danken|thank|person|",
    "antworten|answer|person|",
)

# preposition with its case, then the verb
PREPOSITION_VERBS = (
    "auf acc|warten|wait_for|person vehicle goods|place",
    "mit dat|sprechen,spricht,sprach,gesprochen|talk_to|person|place",
    "an acc|denken,denkt,dachte,gedacht|think_of thought_of thought_of|person event|",
    "nach dat|fragen|ask_for|goods paper|place",
)

MOTION_VERBS = (
    "gehen,geht,ging,sein.gegangen|go went gone||",
    "fahren,fährt,fuhr,sein.gefahren|drive drove driven|vehicle|",
    "kommen,kommt,kam,sein.gekommen|come came come||",
    "laufen,läuft,lief,sein.gelaufen|run ran run||",
)

PUTTING_VERBS = (
    "stellen|put put put|dish bag|",
    "legen|put put put|veg stuff tool paper gear part doc pen med|",
)

STAYING_VERBS = (
    "arbeiten|work||",
    "warten|wait||",
    "bleiben,bleibt,blieb,sein.geblieben|stay||",
    "schlafen,schläft,schlief,geschlafen|sleep slept slept||",
)

TIMETABLE_VERBS = (
    "ab.fahren,fährt,fuhr,sein.abgefahren|leave left left|land|",
    "an.kommen,kommt,kam,sein.angekommen|arrive|vehicle person|",
)

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "kitchen": (
        "frisch|fresh|veg meal stuff drink",
        "heiß|hot|hot pan drink",
        "kalt|cold|meal drink",
        "süß|sweet|bake drink",
        "roh|raw|veg fry",
        "leer|empty|dish",
        "voll|full|dish",
        "sauber|clean|dish tool",
        "schmutzig|dirty|dish tool",
        "lecker|tasty|meal",
        "rund|round|dish",
        "flach|flat|pan",
    ),
    "travel": (
        "ruhig|quiet|stay room",
        "bequem|comfortable|stay vehicle rental",
        "schnell|fast|vehicle rental",
        "langsam|slow|vehicle",
        "berühmt|famous|sight",
        "schön|beautiful|sight stay",
        "modern|modern|vehicle stay rental",
        "praktisch|practical|bag gear guide",
        "leicht|light|bag gear",
        "pünktlich|punctual|vehicle",
    ),
    "workshop": (
        "kaputt|broken|machine bike wooden tool",
        "rostig|rusty|metal bike tool",
        "stabil|sturdy|wooden plank bike",
        "locker|loose|thread spare",
        "krumm|crooked|metal plank",
        "dick|thick|long",
        "dünn|thin|long",
        "laut|loud|machine",
        "gebraucht|used|tool machine bike wooden",
        "nützlich|useful|tool aid",
        "lang|long|long aid",
        "schwer|heavy|tool machine wooden",
    ),
    "office": (
        "wichtig|important|doc mail event",
        "dringend|urgent|mail event",
        "kurz|short|doc mail event",
        "vertraulich|confidential|doc mail",
        "falsch|wrong|doc file",
        "vollständig|complete|doc",
        "schwierig|difficult|event",
        "langweilig|boring|event",
        "freundlich|friendly|person mail",
        "modern|modern|device",
        "praktisch|practical|device",
        "lang|long|doc mail event",
    ),
    "clinic": (
        "krank|sick|ill",
        "müde/müd|tired|ill person",
        "verletzt|injured|ill bone",
        "geschwollen|swollen|body",
        "bitter|bitter|pill",
        "stark|strong|med",
        "gebrochen|broken|bone",
        "tief|deep|sore",
        "nervös|nervous|person",
        "steril|sterile|gear",
        "freundlich|friendly|person",
        "geduldig|patient|person",
        "gefährlich|dangerous|sore",
    ),
}

SHARED_ADJECTIVES = (
    "neu|new|durable doc spot",
    "alt|old|durable doc sight spot person",
    "groß|big|durable veg sight spot room vehicle",
    "klein|small|durable veg sight spot room vehicle",
    "teuer/teur|expensive|goods stay",
    "billig|cheap|goods stay",
    "gut|good|meal tool gear device person drink med",
    "jung|young|person",
)

# German adjective, comparative, English comparative
COMPARATIVES = (
    ("neu", "neuer", "newer"), ("alt", "älter", "older"), ("groß", "größer", "bigger"),
    ("klein", "kleiner", "smaller"), ("teuer", "teurer", "more expensive"), ("billig", "billiger", "cheaper"),
    ("gut", "besser", "better"), ("schwer", "schwerer", "heavier"), ("schnell", "schneller", "faster"),
    ("leicht", "leichter", "lighter"), ("lang", "länger", "longer"), ("jung", "jünger", "younger"),
)

# German name, accusative and dative where they differ, English
NAMES = (("Anna", 1), ("Maria", 1), ("Lena", 1), ("Frau Weber|Ms. Weber", 1),
         ("Peter", 0), ("Jonas", 0), ("Karl", 0), ("Herr Braun/Herrn Braun|Mr. Braun", 0))

PAST_TIMES = (("gestern", "yesterday"), ("gestern Abend", "yesterday evening"), ("letzte Woche", "last week"),
              ("am Montag", "on Monday"), ("vor {} Tagen", "{} days ago"), ("vor {} Stunden", "{} hours ago"),
              ("um {} Uhr", "at {} o'clock"))
FUTURE_TIMES = (("morgen", "tomorrow"), ("heute Abend", "this evening"), ("nächste Woche", "next week"),
                ("am Freitag", "on Friday"), ("in {} Tagen", "in {} days"), ("um {} Uhr", "at {} o'clock"))
HABIT_TIMES = (("jeden Tag", "every day"), ("jeden Morgen", "every morning"), ("jede Woche", "every week"),
               ("am Wochenende", "at the weekend"))
NOW_TIMES = (("jetzt", "now"), ("heute", "today"), ("gerade", "right now"))
# no "very" or "too" before these
ABSOLUTE = ("roh", "leer", "voll", "kaputt", "gebraucht", "vertraulich", "falsch", "vollständig", "verletzt", "gebrochen",
            "steril")
FREQUENCIES = (("oft", "often"), ("immer", "always"), ("manchmal", "sometimes"), ("selten", "rarely"),
               ("nie", "never"))

GERMAN_NUMBERS = ("zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf")
ENGLISH_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
